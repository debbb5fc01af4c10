// Puts a figure into a frame in its picture's place; runs in the notebook's own page.
(() => {
  const box = document.querySelector('[data-ironlens="$ID"]:not([data-shown])');
  if (!box) return;
  box.dataset.shown = "";
  const found = document.querySelector("script.ironlens-shell");
  if (found) window.__ironlensShell = JSON.parse(found.textContent);
  const picture = box.firstElementChild;
  const whole = box.dataset.whole !== undefined;
  if (!whole && !window.__ironlensShell) {
    box.append(Object.assign(document.createElement("small"), {
      textContent: "The picture only: the cell that showed the first figure of this session brings what it needs to be interactive. Restart the kernel and run all cells.",
    }));
    return;
  }
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.title = picture.alt || "figure";
  frame.style.cssText = "display:none;width:100%;height:$HEIGHTpx;border:0";
  const own = JSON.parse(box.querySelector("script").textContent);
  frame.srcdoc = whole ? own : window.__ironlensShell.replace("<!--$PLACE-->", () => own);
  addEventListener("message", (event) => {
    if (event.source !== frame.contentWindow || !(event.data?.ironlensHeight > 0)) return;
    // The figure says when it is drawn, and how high it is.
    frame.style.height = `${Math.ceil(event.data.ironlensHeight)}px`;
    frame.style.display = "block";
    picture.hidden = true;
    picture.style.display = "none";
  });
  // A frame that is not displayed has no width to draw in.
  frame.style.display = "block";
  frame.style.height = "0";
  box.append(frame);
})();
