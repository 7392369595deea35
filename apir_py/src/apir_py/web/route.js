// The view and its parameters live in the address: #/records?number=6001. So reload, back and a new login keep them.

export function readRoute() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: path, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

export function address(view, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return `#/${view}${String(query) && `?${query}`}`;
}
