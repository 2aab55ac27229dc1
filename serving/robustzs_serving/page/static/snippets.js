// The same request for a shell and for Python. Whatever was typed stays text in both.
import { fields } from "./api.js";

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// JSON's texts are Python's, too; what an editor could take for the end of a line is escaped.
const python = (value) => JSON.stringify(value)
  .replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029").replaceAll("\x7f", "\\x7f");

const fileName = (request) => request.file?.name || "photo.jpg";

export function curl(request, origin, hasKey) {
  // curl takes @, <, ; and quotes in -F for its own; a path of ours has none of them unquoted.
  const path = fileName(request).replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  const parts = [`curl ${shell(`${origin}/v1/classify`)}`, `-F ${shell(`image=@"${path}"`)}`];
  if (hasKey) parts.push('-H "Authorization: Bearer $ROBUSTZS_API_KEY"');
  for (const [name, value] of Object.entries(fields(request))) {
    parts.push(`--form-string ${shell(`${name}=${value}`)}`);
  }
  return parts.join(" \\\n  ");
}

export function pythonCode(request, origin, hasKey) {
  const options = Object.entries(fields(request)).map(([name, value]) => {
    const plain = name === "labels" ? `[${request.labels.map(python).join(", ")}]`
      : name === "theta" ? value : python(value);
    return `        ${name}=${plain},\n`;
  });
  const key = hasKey ? ', api_key=os.environ["ROBUSTZS_API_KEY"]' : "";
  return `${hasKey ? "import os\n\n" : ""}from robustzs_client import Client

with Client(${python(origin)}${key}) as client:
    answer = client.classify(
        ${python(fileName(request))},
${options.join("")}    )
print(answer.prediction.name, answer.prediction.probability)
`;
}
