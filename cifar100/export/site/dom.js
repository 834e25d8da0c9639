// Helpers for the DOM.

export const query = (selector) => document.querySelector(selector);

export function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}
