"""Image bytes to pixels, in processes that can be killed.

```
pool.py      DecodePool: the asyncio side; bounds what waits, gives up on what takes too long
slot.py      one process and its replacement, seen from the thread that talks to it
worker.py    the process: imports only what decoding needs
wire.py      what goes between the two: lengths and raw bytes, never pickles
```

A decoder reads hostile bytes, so what comes back from it is not trusted either: pixels are exactly
as many bytes as the model's input has, an error is a number from a fixed list and a short text.

Nothing is imported here, because decode processes import this package.
"""
