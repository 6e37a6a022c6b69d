-- A chat request of about 200 bytes.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("INFERX_API_KEY") or "ix_0000000000000000")
wrk.body = '{"model":"tiny","messages":[{"role":"user","content":"' .. string.rep("x", 120) .. '"}],"max_tokens":16}'

done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
