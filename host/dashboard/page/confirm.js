// Nothing is ordered by one press.

import { byId, say } from "./dom.js";
import { forget, withLogin } from "./session.js";

let action = null;

export function prepareConfirm() {
  byId("confirm").addEventListener("close", async () => {
    const chosen = action;
    action = null;
    if (byId("confirm").returnValue !== "yes" || !chosen) return;
    try {
      say(await chosen());
    } catch (error) {
      if (error.status === 401) forget();
      say(error.message, "bad");
    }
  });
}

// `act` returns what to say when it is done, or throws why not.
export function confirm(title, text, act) {
  withLogin(() => {
    action = act;
    byId("confirm-title").textContent = title;
    byId("confirm-text").textContent = text;
    byId("confirm").returnValue = "no";
    byId("confirm").showModal();
  });
}
