// The API key: kept for as long as the tab is open, and asked for when there is none or it is refused.

const STORED = "soliloquy-key";
const dialog = document.getElementById("key");

let asking = null; // one question for all requests that wait for its answer

/** A key to try after `refused` (null if none was sent), or null if there is none. */
export async function nextKey(refused) {
  const stored = recall();
  if (stored && stored !== refused) return stored;
  if (!dialog) return null; // it is not this server that wants one
  asking ??= ask(refused !== null);
  try {
    return await asking;
  } finally {
    asking = null;
  }
}

function ask(again) {
  const field = dialog.querySelector("input");
  const error = dialog.querySelector("[role=alert]");
  dialog.returnValue = field.value = "";
  dialog.showModal();
  error.textContent = again ? error.dataset.refused : "";
  return new Promise((resolve) => {
    const closed = () => {
      const key = field.value.replace(/[^!-~]/g, ""); // what a header can carry
      if (dialog.returnValue !== "use" || !key) return resolve(null);
      remember(key);
      resolve(key);
    };
    dialog.addEventListener("close", closed, { once: true });
  });
}

function recall() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null; // a browser may forbid it
  }
}

function remember(key) {
  try {
    sessionStorage.setItem(STORED, key);
  } catch {
    // then it is asked for again after a reload
  }
}
