// From answers to elements. Texts become text nodes, so that none of them can be markup.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const percent = (p) => p === null ? "" : p >= 0.9995 ? "100%" : `${(100 * p).toFixed(1)}%`;

function row(node, extra = null) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  if (node.probability !== null) {
    const part = element("span");
    part.style.setProperty("--part", node.probability);
    bar.append(part);
  }
  return element("div", { class: "row" },
    element("span", { class: "name" }, node.name, extra),
    bar,
    element("span", { class: "number" }, percent(node.probability)));
}

function why(answer) {
  const { stop, prediction, path } = answer;
  if (stop.reason === "rejected") return "None of these: the picture is too unlike every label.";
  if (stop.reason === "leaf") {
    return `The most specific there is${stop.theta > 0 ? `: every step was above ${percent(stop.theta)}` : ""}.`;
  }
  if (stop.reason === "level" || stop.reason === "max-depth") return "The level that was asked for.";
  const next = path.find((node) => node.depth === prediction.depth + 1);
  if (!next) return `Stopped at a threshold of ${percent(stop.theta)}.`;
  const share = next.probability === null ? "not above" : `${percent(next.probability)}, not above`;
  return `“${next.name}” would be a guess: ${share} ${percent(stop.theta)}.`;
}

function pathList(answer, label) {
  const list = element("ol", { class: "path", "aria-label": label });
  answer.path.forEach((node, step) => {
    const stop = node.id === answer.prediction.id;
    const lit = node.depth <= answer.prediction.depth;
    const mark = stop ? element("span", { class: "mark" }, " ← the answer")
      : lit ? null : element("span", { class: "beyond" }, " (a guess)");
    const item = element("li", { class: `${lit ? "lit" : ""} ${stop ? "stop" : ""}`.trim() }, row(node, mark));
    if (stop) item.setAttribute("aria-current", "true");
    item.style.setProperty("--step", step);
    list.append(item);
  });
  return list;
}

function ranking(title, nodes) {
  if (!nodes.length) return null;
  const list = element("ol", { class: "plain" });
  nodes.forEach((node) => list.append(element("li", { class: "lit" }, row(node))));
  return element("div", {}, element("h3", {}, title), list);
}

function timeParts(timing) {
  return `labels ${timing.labels_ms}, decoding ${timing.decode_ms}, waiting ${timing.queue_ms}, model ${timing.model_ms}`;
}

export function showAnswer(answer) {
  const sure = answer.prediction.probability;
  const headline = answer.rejected ? "None of these" : answer.prediction.name;
  const notes = [...answer.warnings];
  if (answer.low_confidence) notes.unshift("Low confidence: pictures like this are often misread.");
  const timing = [`${Math.round(answer.roundTrip)} ms from here and back`];
  if (answer.timing.total_ms !== undefined) timing.push(`${answer.timing.total_ms} ms in the service (${timeParts(answer.timing)})`);
  const others = answer.forest.map((tree) => element("div", {},
    element("h3", {}, `In ${tree.hierarchy.name}: ${tree.prediction.name}`),
    pathList(tree, `The way down ${tree.hierarchy.name}`)));
  return [
    element("p", { class: "headline" }, headline, sure === null ? "" : ` ${percent(sure)}`),
    element("p", { class: "why" }, why(answer)),
    ...notes.map((note) => element("p", { class: "note" }, note)),
    pathList(answer, "The way down the tree"),
    element("div", { class: "columns" },
      ranking(`Other kinds of ${answer.prediction.name}`, answer.prediction.is_leaf ? [] : answer.alternatives.slice(0, 5)),
      ranking("Most probable labels, whatever the tree", answer.top_k)),
    ...others,
    element("p", { class: "timing" }, timing.join(", ")),
  ];
}

export function showProblem(error) {
  const parts = [element("strong", {}, advice(error)), element("p", {}, error.message)];
  const codes = element("p", {}, "Code ", element("a", { href: `/v1/errors#${error.code}` }, error.code));
  if (error.requestId) codes.append(", request ", element("code", {}, error.requestId));
  return error.status ? [...parts, codes] : parts;
}

function advice(error) {
  if (error.status === 0) return "No answer.";
  if (error.status === 401) return "This service asks for an API key: enter it beside “API key”.";
  if (error.status === 429 || error.status === 503) return "The service is busy: try again in a moment.";
  if (error.status >= 500) return "The service failed. Its operator finds the reason by the request's id.";
  if (error.code.startsWith("image")) return "This picture cannot be used.";
  if (error.code.startsWith("label")) return "The labels cannot be used.";
  if (error.code.startsWith("hierarchy") || error.code === "stored-not-found") return "The hierarchy cannot be used.";
  return "The request was refused.";
}

export function showModel(model) {
  const facts = [
    ["Name", [model.name, ...(model.aliases ?? [])].join(", also ")],
    ["Digest", model.digest],
    ["Runs on", [model.provider, model.precision].filter(Boolean).join(", ")],
    ["Sees", model.image_size ? `${model.image_size.join(" × ")} pixels` : ""],
  ];
  const list = element("dl");
  for (const [name, value] of facts) {
    if (value) list.append(element("dt", {}, name), element("dd", {}, value));
  }
  return [list, ...card(model.card)];
}

function card(document) {
  if (!document) return [element("p", {}, "It has no robustness card: nothing is known of how it holds against attacks.")];
  const parts = [];
  if (document.description) parts.push(element("p", {}, document.description));
  const rows = (Array.isArray(document.results) ? document.results : []).filter((result) => result.depth == null
    && typeof result.robust_accuracy === "number" && typeof result.clean_accuracy === "number");
  if (rows.length) {
    const head = ["Data", "Attack", "Size", "Images", "Clean", "Attacked"].map((text) => element("th", { scope: "col" }, text));
    const body = rows.map((result) => element("tr", {}, ...[
      result.dataset, result.attack, result.eps, String(result.n),
      percent(result.clean_accuracy), percent(result.robust_accuracy),
    ].map((text) => element("td", {}, text))));
    parts.push(element("div", { class: "scroll" }, element("table", {},
      element("caption", {}, "Right answers before and under attack"),
      element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body))));
  } else {
    parts.push(element("p", {}, "Its card holds no measurement under attack."));
  }
  parts.push(element("details", {}, element("summary", {}, "The whole card"),
    element("pre", { tabIndex: 0 }, JSON.stringify(document, null, 1))));
  return parts;
}
