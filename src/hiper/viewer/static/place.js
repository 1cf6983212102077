// The address is the state of the page: what one sees can be sent to somebody as a link.

export function here() {
  const [view, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { view: view || "runs", at: Object.fromEntries(new URLSearchParams(query || "")) };
}

export function link(view, at = {}) {
  const kept = Object.entries(at).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${view === "runs" ? "" : view}${query ? `?${query}` : ""}`;
}

export function go(view, at) {
  location.hash = link(view, at);
}

// Changes the address without drawing the page anew and without a step in the history.
export function note(changes) {
  const { view, at } = here();
  history.replaceState(null, "", link(view, { ...at, ...changes }));
}
