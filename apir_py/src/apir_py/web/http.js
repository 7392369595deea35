// Requests to the service.

const PATIENCE = 10_000; // ms

/** Send a request; gives {status, data, wait}. Status 0: no answer. `wait`: seconds of Retry-After. */
export async function request(method, path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const response = await fetch(path, {
      method,
      signal: stop.signal,
      credentials: "same-origin",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    const data = await response.json().catch(() => null);
    return { status: response.status, data, wait: Number(response.headers.get("Retry-After")) || 0 };
  } catch {
    return { status: 0, data: null, wait: 0 };
  } finally {
    clearTimeout(timer);
  }
}
