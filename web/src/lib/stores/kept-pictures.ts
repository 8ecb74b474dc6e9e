/** Pictures of a form over a reload: in the browser's database, as they are too large for its storage. */

import type { DrawFields } from "../api";

const DATABASE = "sfumato";
const TABLE = "pictures";

/** What a request to the database gives; null where there is none, as in private windows that forbid it. */
async function asked<T>(
  mode: IDBTransactionMode,
  ask: (table: IDBObjectStore) => IDBRequest<T>,
): Promise<T | null> {
  if (typeof indexedDB === "undefined") return null;
  const settled = <R>(request: IDBRequest<R>) =>
    new Promise<R>((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error ?? new Error("the browser's database cannot be used"));
    });
  try {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE);
    const database = await settled(opening);
    try {
      return await settled(ask(database.transaction(TABLE, mode).objectStore(TABLE)));
    } finally {
      database.close();
    }
  } catch {
    return null; // it is full or forbidden: the pictures live as long as the window
  }
}

/** Keep them under the name of a form; none forgets it. */
export async function keepPictures(form: string, fields: DrawFields | null): Promise<void> {
  await asked(
    "readwrite",
    (table) => (fields === null ? table.delete(form) : table.put(fields, form)) as IDBRequest<unknown>,
  );
}

export async function keptPictures(form: string): Promise<DrawFields> {
  return (await asked("readonly", (table) => table.get(form) as IDBRequest<DrawFields | undefined>)) ?? {};
}
