// What the page asks of the service. The key lives in a variable of the page and nowhere else.

export class Refused extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.requestId = error.request_id;
    this.param = error.param;
  }
}

export async function classify(request, key) {
  const form = new FormData();
  form.append("image", request.file, "0"); // the service needs no name of yours
  for (const [name, value] of Object.entries(fields(request))) form.append(name, value);
  const started = performance.now();
  const answer = await ask("/v1/classify", key, { method: "POST", body: form });
  return { ...answer.results[0], timing: answer.timing ?? {}, roundTrip: performance.now() - started };
}

export async function models(key) {
  return (await ask("/v1/models", key, {})).models;
}

// The fields of a request, as the form of /v1/classify has them.
export function fields(request) {
  const found = {};
  if (request.labels.length) found.labels = JSON.stringify(request.labels);
  if (request.hierarchy) found.hierarchy = request.hierarchy;
  if (request.labels.length && request.hierarchy === "wordnet") {
    found.on_ambiguous = "first";
    found.on_unknown = "attach";
  }
  if (request.theta !== null) found.theta = String(request.theta);
  return found;
}

async function ask(path, key, options) {
  const headers = { Accept: "application/json" };
  if (key) headers["X-API-Key"] = key;
  let response;
  try {
    response = await fetch(path, {
      ...options, headers, credentials: "omit", cache: "no-store", redirect: "error",
    });
  } catch {
    throw new Refused(0, { code: "no-answer", message: "The service does not answer. Is it running?" });
  }
  const requestId = response.headers.get("X-Request-ID");
  let body = null;
  try {
    body = await response.json();
  } catch { /* told below */ }
  if (response.ok && body !== null) return body;
  throw new Refused(response.status, {
    code: body?.error?.code ?? "unknown",
    message: body?.error?.message ?? `The service answered with HTTP ${response.status}.`,
    request_id: body?.error?.request_id ?? requestId,
    param: body?.error?.param ?? null,
  });
}
