// Text to copy: shown as it is, with a button. Where the host keeps the clipboard to itself, the text is selected for Ctrl+C.
import { el } from "../dom.js";

// said(words) tells the reader what happened.
export function createCopy(label, said) {
  const text = el("pre", { class: "iv-copy-text", tabindex: 0, "aria-label": label });
  const button = el("button", { type: "button", text: `copy ${label}` });
  const box = el("details", { class: "iv-copy" }, el("summary", { text: label }), button, text);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      said(`${label} copied`);
    } catch {
      box.open = true;
      window.getSelection().selectAllChildren(text);
      said(`${label} selected; press Ctrl+C to copy`);
    }
  });
  return { box, show: (words) => { text.textContent = words; box.hidden = words === ""; } };
}
