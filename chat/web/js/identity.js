// What identifies this page: a random id, and the name that its user chose.
//
// The id lives as long as the browser tab. So the server recognises messages that were pending when the page was
// reloaded. If the user duplicates a tab, the new tab has a copy of the id. The page holds a lock for its id, so that a
// tab with a copied id notices this and takes a new one. In browsers without locks, each load of the page takes a new
// id.

/** Returns the id of this page, and whether it is the same as before a reload. */
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

/** Tries to take the lock of an id, and holds it for as long as the page exists. Resolves with whether it succeeded. */
function hold(id) {
  return new Promise((resolve) => {
    navigator.locks
      .request(`client-${id}`, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        return lock && new Promise(() => {}); // never resolves: holds the lock until the page is closed
      })
      .catch(() => resolve(false));
  });
}

/** Returns a random id. `crypto.randomUUID` is not used, because it exists only on secure origins. */
export function random() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The name that the user chose; kept for all tabs. */
export const name = {
  get: () => stored(localStorage_, "name") ?? "",
  set: (value) => store(localStorage_, "name", value),
};

/** The messages that the server has not confirmed; kept for this tab. */
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

// The browser may forbid storage. Then nothing is kept when the page is closed or reloaded.
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
    // The browser forbids storage; see above.
  }
}
