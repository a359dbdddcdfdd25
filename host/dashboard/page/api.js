// The program's answers as JSON. An answer that is none, or that says why not, becomes an Error with one line.

let token = "";

export function setToken(value) {
  token = value;
}

export const get = (path) => ask(path, {});

export const post = (path, body) => ask(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Beltsight-Token": token },
  body: JSON.stringify(body),
});

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the page's program does not answer");
  }
  const content = await response.json().catch(() => null);
  if (!response.ok) {
    const error = new Error(content?.error ?? `the page's program answers ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return content;
}
