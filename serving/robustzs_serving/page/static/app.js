// Wires the form to the service.
import { Refused, classify, models } from "./api.js";
import { curl, pythonCode } from "./snippets.js";
import { showAnswer, showModel, showProblem } from "./view.js";

const at = (id) => document.getElementById(id);
let file = null;
let preview = null;
let latest = 0;

function request() {
  const tree = at("tree").value;
  const own = tree.startsWith("labels");
  const labels = own ? at("labels").value.split(/[,\n]/).map((text) => text.trim()).filter(Boolean) : [];
  const hierarchy = { labels: "flat", "labels-wordnet": "wordnet", stored: at("stored").value.trim() }[tree] ?? tree;
  const theta = at("theta").value.trim();
  return { file, labels, hierarchy, theta: theta === "" ? null : Number(theta) };
}

function refresh() {
  const tree = at("tree").value;
  at("labels-field").hidden = !tree.startsWith("labels");
  at("stored-field").hidden = tree !== "stored";
  const asked = request();
  const hasKey = at("key").value !== "";
  at("curl").textContent = curl(asked, location.origin, hasKey);
  at("python").textContent = pythonCode(asked, location.origin, hasKey);
}

function take(chosen) {
  if (!chosen) return;
  file = chosen;
  if (preview) URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(chosen);
  at("preview").src = preview;
  at("preview").hidden = false;
  at("file-name").textContent = chosen.name || "The pasted picture";
  refresh();
  submit();
}

function problem(error) {
  at("result").hidden = true;
  at("nothing").hidden = true;
  at("problem").hidden = false;
  at("problem").replaceChildren(...showProblem(error));
  if (error.status === 401) at("key-box").open = true;
}

function incomplete(asked) {
  if (!asked.file) return ["Choose a picture first.", "file"];
  if (at("tree").value.startsWith("labels") && !asked.labels.length) return ["Type at least one label.", "labels"];
  if (at("tree").value === "stored" && !asked.hierarchy) return ["Type the id of the hierarchy.", "stored"];
  return null;
}

async function submit() {
  const asked = request();
  const missing = incomplete(asked);
  if (missing) {
    at("status").textContent = missing[0];
    at(missing[1]).focus();
    return;
  }
  const turn = ++latest;
  at("go").disabled = true;
  at("answer").setAttribute("aria-busy", "true");
  at("status").textContent = "Classifying …";
  try {
    const answer = await classify(asked, at("key").value);
    if (turn !== latest) return; // another picture was chosen meanwhile
    at("problem").hidden = true;
    at("nothing").hidden = true;
    at("result").hidden = false;
    at("result").replaceChildren(...showAnswer(answer));
    at("status").textContent = answer.rejected ? "Done: none of these." : `Done: ${answer.prediction.name}.`;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (turn !== latest) return;
    at("status").textContent = "";
    problem(error);
  } finally {
    if (turn === latest) {
      at("go").disabled = false;
      at("answer").removeAttribute("aria-busy");
    }
  }
}

async function about() {
  try {
    const found = await models(at("key").value);
    at("model").replaceChildren(...found.flatMap(showModel));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("model").replaceChildren(...showProblem(error));
    if (error.status === 401) at("key-box").open = true;
  }
}

async function copy(event) {
  const code = at(event.target.dataset.of);
  try {
    await navigator.clipboard.writeText(code.textContent);
    at("copied").textContent = "Copied.";
  } catch { // no permission, or no https: select it for Ctrl+C
    getSelection().selectAllChildren(code);
    at("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
at("form").addEventListener("input", refresh);
at("file").addEventListener("change", () => take(at("file").files[0]));
at("key").addEventListener("change", about);
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", copy);

document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

refresh();
about();
