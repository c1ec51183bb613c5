// The portal's API with the browser's own cookie. A failure is an error object of the portal: code, message, retryable.

export class Refused extends Error {
  constructor(error, status) {
    super(error.message);
    this.error = error;
    this.status = status;
  }
}

const OFFLINE = {
  code: "unreachable",
  message: "The studio does not answer. Check the connection; what was accepted goes on without this page.",
  retryable: true,
};

export async function api(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", headers: { Accept: "application/json" }, ...options });
  } catch {
    throw new Refused(OFFLINE, 0);
  }
  if (answer.status === 401 && (await renewed())) return api(path, options);
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  throw new Refused(await reason(answer), answer.status);
}

export function post(path, body) {
  return send("POST", path, body);
}

export function put(path, body) {
  return send("PUT", path, body);
}

export function send(method, path, body) {
  return api(path, {
    method,
    headers: { Accept: "application/json", "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
}

async function reason(answer) {
  try {
    const { error } = await answer.json();
    if (error?.message) return error;
  } catch {
    // A body that is not ours: the status alone has to do.
  }
  return { code: `http_${answer.status}`, message: `The portal answered ${answer.status}. Try again.`, retryable: answer.status >= 500 };
}

let renewal = null;

// The access cookie is short-lived: ask once for a fresh one, however many calls found it stale.
export function renewed() {
  renewal ??= fetch("/api/v1/auth/refresh", { method: "POST", credentials: "same-origin" })
    .then((answer) => answer.ok, () => false)
    .finally(() => setTimeout(() => (renewal = null), 1000));
  return renewal;
}
