/** Where the focus is when something opens and closes. */

import type { Attachment } from "svelte/attachments";

/** What opens takes the focus; when it goes with the focus in it, that returns to where it was. */
export const borrowsFocus: Attachment<HTMLElement> = (element) => {
  const lender = document.activeElement;
  element.focus({ preventScroll: true });
  return () => {
    // what had the focus is gone by now
    if (document.activeElement === document.body && lender instanceof HTMLElement) lender.focus();
  };
};
