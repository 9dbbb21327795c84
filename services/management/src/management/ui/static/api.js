// Calls the API with the session's cookie; errors carry what the person can do about them.

export class Problem extends Error {
  constructor(status, body) {
    const details = body?.details;
    const more = Array.isArray(details) ? details.join("; ") : typeof details === "object" && details ? JSON.stringify(details) : details;
    super([body?.error ?? `The service answered ${status}`, more].filter(Boolean).join(": "));
    this.status = status;
  }
}

export async function call(method, path, body) {
  let reply;
  try {
    reply = await fetch(`/api${path}`, {
      method,
      headers: { "content-type": "application/json", "x-requested-with": "console" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { error: "The service does not answer", details: "check the connection and try again" });
  }
  const text = await reply.text();
  let told;
  try { told = JSON.parse(text); } catch { told = { error: text.slice(0, 200) }; }
  if (!reply.ok) throw new Problem(reply.status, told);
  return told;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);
