// Who this page is: an id of its own, and the name its user chose.
//
// The id lives as long as the tab, so that messages that were pending when it was reloaded are known again. A
// duplicated tab has a copy of it: a lock tells them apart where there are locks; elsewhere each load is a new one.

export async function clientId() {
  const kept = stored(sessionStorage_, "client");
  if (kept && navigator.locks && (await hold(kept))) return { id: kept, same: true };
  const id = random();
  if (navigator.locks) {
    await hold(id);
    store(sessionStorage_, "client", id);
  }
  return { id, same: false };
}

function hold(id) {
  return new Promise((resolve) => {
    navigator.locks
      .request(`client-${id}`, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        return lock && new Promise(() => {}); // until the page is gone
      })
      .catch(() => resolve(false));
  });
}

/** A random id. `crypto.randomUUID` exists on secure origins only. */
export function random() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const name = {
  get: () => stored(localStorage_, "name") ?? "",
  set: (value) => store(localStorage_, "name", value),
};

export const pending = {
  get() {
    try {
      const found = JSON.parse(stored(sessionStorage_, "pending") ?? "[]");
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  },
  set: (items) => store(sessionStorage_, "pending", JSON.stringify(items)),
};

// Storage may be forbidden; then things are forgotten with the page.
const sessionStorage_ = () => sessionStorage;
const localStorage_ = () => localStorage;

function stored(storage, key) {
  try {
    return storage().getItem(key);
  } catch {
    return null;
  }
}

function store(storage, key, value) {
  try {
    storage().setItem(key, value);
  } catch {
    // as said
  }
}
