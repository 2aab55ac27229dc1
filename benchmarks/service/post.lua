-- Sends the bodies of a folder in turn: $BODIES holds them, $CONTENT_TYPE says what they are.
-- Prints one line of JSON at the end; times in milliseconds.
local requests = {}

init = function() -- only now does wrk know the header Host
  local headers = { ["Content-Type"] = os.getenv("CONTENT_TYPE"), ["Host"] = wrk.headers["Host"] }
  local listing = io.popen('ls "' .. os.getenv("BODIES") .. '"')
  for name in listing:lines() do
    local file = io.open(os.getenv("BODIES") .. "/" .. name, "rb")
    requests[#requests + 1] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
  listing:close()
end

local last = 0
request = function()
  last = last % #requests + 1
  return requests[last]
end

done = function(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.3f, "p99": %.3f}',
    summary.requests - errors.status, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
