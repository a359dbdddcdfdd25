// Who is logged in. Orders ask for it when they need it.

import { get, post, setToken } from "./api.js";
import { byId, setText } from "./dom.js";

let user = "";
let proceed = null; // what waits for the login
let changed = () => {};

export const isLoggedIn = () => user !== "";

export async function prepareSession(onChange) {
  changed = onChange;
  byId("log-in").addEventListener("click", () => askLogin(() => {}));
  byId("log-out").addEventListener("click", async () => {
    await post("/api/logout", {}).catch(() => {});
    take({ user: "", token: "" });
  });
  byId("login-form").addEventListener("submit", logIn);
  take(await get("/api/session"));
}

// Do it now, or after a login.
export function withLogin(action) {
  if (isLoggedIn()) action();
  else askLogin(action);
}

export function forget() {
  take({ user: "", token: "" });
}

function askLogin(action) {
  proceed = action;
  setText(byId("login-error"), "");
  byId("login-form").reset();
  byId("login").showModal();
}

async function logIn(event) {
  event.preventDefault();
  const form = new FormData(byId("login-form"));
  try {
    take(await post("/api/login", { user: form.get("user"), password: form.get("password") }));
    byId("login").close();
    proceed?.();
  } catch (error) {
    setText(byId("login-error"), error.message);
  }
}

function take(session) {
  user = session.user;
  setToken(session.token);
  setText(byId("user"), user);
  byId("log-in").hidden = isLoggedIn();
  byId("log-out").hidden = !isLoggedIn();
  changed();
}
