"""CSS and JavaScript of the web app."""

from __future__ import annotations

STYLE = """
.gradio-container { max-width: min(1080px, 100vw) !important; margin: 0 auto !important; overflow-x: hidden; }
.gradio-container { --soft: #565e6b; --line: #d5d9e0; }
.dark .gradio-container, .gradio-container.dark { --soft: #b4bbc7; --line: #3a3f49; }
.page-head a { padding: 0 !important; }
.page-head h1 { font-size: 1.7rem; margin: .4rem 0 .2rem; }
.cifar { color: var(--body-text-color); line-height: 1.5; }
.cifar h2 { font-size: 1.25rem; margin: 1.2rem 0 .4rem; }
.cifar h3 { font-size: 1.05rem; margin: 1rem 0 .3rem; }
.cifar .hint, .cifar small { color: var(--soft) !important; }
.cifar .unsure { font-size: 1.1rem; margin: .2rem 0 .6rem; }
.cifar .ranking li:first-child { font-size: 1.35rem; margin-bottom: .7rem; }
.cifar .ranking li:first-child .name { font-weight: 600; }
.cifar .ranking li:first-child small { font-weight: 400; font-size: .95rem; line-height: 1.3; }
.cifar .ranking li:first-child .share { font-size: 1rem; font-weight: 600; }
.cifar .badge { background: #8a5a00; color: #fff; border-radius: 6px; padding: .05rem .5rem; font-size: .9em;
  white-space: nowrap; }
.cifar .refusal { border-left: 4px solid #c0392b; padding: .5rem .8rem; background: var(--background-fill-secondary); }
.cifar ol.bars { list-style: none; margin: 0; padding: 0; }
.cifar ol.bars li { display: grid; grid-template-columns: minmax(8rem, 13rem) 1fr 4rem; gap: .7rem; align-items: center;
  margin: .3rem 0; padding: 0; }
.cifar .name small { display: block; line-height: 1.1; }
.cifar .track { background: var(--line); border-radius: 6px; height: .9rem; overflow: hidden; }
.cifar .track span { display: block; height: 100%; background: #2f7dd1; min-width: 2px; }
.cifar .share { text-align: right; font-variant-numeric: tabular-nums; }
.cifar .views { display: grid; grid-template-columns: repeat(auto-fit, minmax(5.5rem, 1fr)); gap: .8rem;
  margin: 1rem 0 .4rem; }
.cifar .views figure { margin: 0; max-width: 256px; }
.cifar .views img { width: 100%; height: auto; aspect-ratio: 1; object-fit: contain; border-radius: 8px; margin: 0; }
.cifar img.pixelated { image-rendering: pixelated; }
.cifar figcaption { font-size: .9rem; color: var(--soft) !important; }
.cifar .wide { overflow-x: auto; }
.cifar table, .cifar tr, .cifar th, .cifar td { border: 0 !important; }
.cifar table { border-collapse: collapse; width: 100%; }
.cifar th, .cifar td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line) !important;
  vertical-align: top; overflow-wrap: anywhere; }
.cifar tr.refusal td { border-left: 4px solid #c0392b !important; }
.cifar td img { border-radius: 6px; margin: 0; max-width: none; }
.cifar .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .8rem; }
.cifar .card { border: 1px solid var(--line); border-radius: 10px; padding: .6rem .9rem; }
.cifar .card h3 { margin: 0 0 .3rem; }
.cifar .card ul { margin: 0; padding-left: 1.1rem; }
:focus-visible { outline: 3px solid #2f7dd1 !important; outline-offset: 2px; }
@media (max-width: 560px) {
  .tab-container button { padding: 0 .55rem !important; font-size: .9rem !important; }
  .gradio-container main, .gradio-container .main { padding-left: .4rem !important; padding-right: .4rem !important; }
  .cifar ol.bars li { grid-template-columns: 1fr 3.6rem; row-gap: .1rem; }
  .cifar .track { grid-row: 2; grid-column: 1 / -1; }
}
"""

HEAD = """<script>
document.addEventListener("paste", event => {
  const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
  if (!file || event.defaultPrevented) return;
  document.querySelector("#image button[aria-label='Remove Image']")?.click();
  setTimeout(() => {
    const input = document.querySelector("#image input[type=file]"), carried = new DataTransfer();
    if (!input) return;
    carried.items.add(file);
    input.files = carried.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, 100);
});
new MutationObserver(() => document.querySelectorAll('#examples img[alt=""]').forEach(image => {
  image.alt = "Example: " + decodeURIComponent(image.src).split("/").pop().replace(/[.].*/, "");
})).observe(document, { childList: true, subtree: true });
</script>"""
"""Accepts an image that is pasted anywhere on the page (gradio only has a button), and adds alternative texts to the
example images, which gradio leaves out."""
