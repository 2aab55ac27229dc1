"""What the HTTP service costs, beside the same work without HTTP and beside other servers.

```
compare.py   the rounds and the table: `make benchmark-service`
pictures.py  the photographs, and the request bodies made of them
load.py      wrk, with its own CPU time
post.lua     what wrk sends
servers.py   starting servers, and the CPU time of all their processes
raw.py       decoding and encoding alone, as fast as it goes
plain.py     a server of FastAPI and open_clip
```
"""
