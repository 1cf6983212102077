// What the page asks the server. An exported page brings the answers along.

const embedded = document.getElementById("answers");
const answers = embedded ? JSON.parse(embedded.textContent) : null;

export const exported = answers !== null;

export function path(name, parameters = {}) {
  const query = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`).join("&");
  return `${name}${query ? `?${query}` : ""}`;
}

export async function get(name, parameters) {
  const asked = path(name, parameters);
  if (exported) {
    if (asked in answers) return answers[asked];
    throw new Error("this page was exported without it");
  }
  return answered(await fetch(`api/${asked}`, { headers: { accept: "application/json" } }));
}

export async function post(name, body) {
  return answered(await fetch(`api/${name}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  }));
}

async function answered(response) {
  const type = response.headers.get("content-type") || "";
  const found = type.startsWith("application/json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw Object.assign(new Error(found.error || `the server answered ${response.status}`), { answered: true });
  return found;
}
