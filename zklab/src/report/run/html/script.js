"use strict";
// Makes the timeline move. Everything it shows is on the page without it, only smaller.
(() => {
  const svg = document.getElementById("tl");
  for (const code of document.querySelectorAll(".commands code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.onclick = () => {
      const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
      const select = () => {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
        done();
      };
      // A page opened from a file may have no clipboard.
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select); else select();
    };
    code.after(button);
  }
  if (!svg) return;
  const told = document.getElementById("data");
  const data = told ? JSON.parse(told.textContent) : {};
  const end = +svg.dataset.end, left = +svg.dataset.left, span = +svg.dataset.span, height = +svg.dataset.height;
  const groups = [...svg.querySelectorAll("g.zoom")], texts = [...svg.querySelectorAll("text[data-t]")];
  const marks = [...svg.querySelectorAll("g[data-g]")], patterns = [...svg.querySelectorAll("pattern")];
  const axis = document.getElementById("axis");
  let from = 0, to = end;
  const x = (t) => left + (t - from) / (to - from) * span;
  const ns = (tag, attributes) => {
    const element = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const drawAxis = () => {
    const rough = (to - from) / 1e3 / 10, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((s) => s * power >= rough) * power;
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    axis.replaceChildren();
    for (let n = Math.ceil(from / 1e3 / step); n * step * 1e3 <= to; n++) {
      const at = x(n * step * 1e3);
      axis.append(ns("line", { x1: at, x2: at, y1: 20, y2: height }));
      const text = ns("text", { x: at, y: 14 });
      text.textContent = (n * step).toFixed(decimals) + " s";
      axis.append(text);
    }
  };
  const show = (a, b) => {
    const least = Math.min(end, 0.2);
    if (b - a < least) { const middle = (a + b) / 2; a = middle - least / 2; b = middle + least / 2; }
    from = Math.max(0, a); to = Math.min(end, b);
    const scale = end / (to - from);
    const shift = left - (left + from / end * span) * scale;
    for (const group of groups) group.setAttribute("transform", `matrix(${scale} 0 0 1 ${shift} 0)`);
    for (const pattern of patterns) pattern.setAttribute("patternTransform", `scale(${1 / scale} 1) rotate(45)`);
    for (const text of texts) {
      const t = +text.dataset.t, u = +text.dataset.u;
      const begin = Math.max(left, x(t)), stop = Math.min(left + span, x(u));
      text.setAttribute("x", begin + 4);
      text.classList.toggle("off", u < from || t > to || stop - begin < +text.dataset.w || (+text.dataset.w === 0 && t < from));
    }
    for (const mark of marks) {
      const t = +mark.dataset.g;
      mark.setAttribute("transform", `translate(${x(t)},0)`);
      mark.parentNode.style.display = t < from || t > to ? "none" : "";
    }
    drawAxis();
  };
  const band = document.getElementById("band"), cursor = document.getElementById("cursor"), now = document.getElementById("now");
  const time = (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    return Math.min(to, Math.max(from, from + (at - left) / span * (to - from)));
  };
  const ms = (us) => us == null ? "–" : us < 1e3 ? us + " µs" : (us / 1e3).toFixed(us < 1e5 ? 1 : 0) + " ms";
  const tell = (t) => {
    const parts = [(t / 1e3).toFixed(4) + " s"];
    for (const lane of data.lanes || []) {
      const found = lane.s.find((s) => s[0] <= t && t < s[1]);
      if (found) parts.push(lane.n + " " + found[2]);
    }
    const load = data.load, column = load && load.columns[Math.floor(t / load.width)];
    if (column) {
      const rate = Math.round((column[0] + column[1] + column[2]) / load.width * 1e3);
      parts.push(rate + " ops/s", "p50 " + ms(column[3]), "p99 " + ms(column[4]));
      if (column[2]) parts.push(column[2] + " never answered");
    }
    now.textContent = parts.join("  ·  ");
    now.hidden = false;
  };
  let pressed = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest("a")) { pressed = time(event); event.preventDefault(); }
  });
  svg.addEventListener("pointermove", (event) => {
    const t = time(event);
    if (cursor) { cursor.setAttribute("x1", x(t)); cursor.setAttribute("x2", x(t)); }
    tell(t);
    if (pressed !== null && band) {
      band.setAttribute("x", x(Math.min(t, pressed)));
      band.setAttribute("width", Math.abs(x(t) - x(pressed)));
    }
  });
  addEventListener("pointerup", (event) => {
    if (pressed === null) return;
    const t = time(event), begin = pressed;
    pressed = null;
    if (band) band.setAttribute("width", 0);
    if (Math.abs(x(t) - x(begin)) > 4) show(Math.min(t, begin), Math.max(t, begin));
  });
  svg.addEventListener("pointerleave", () => {
    if (cursor) { cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); }
    now.hidden = true;
  });
  svg.addEventListener("dblclick", () => show(0, end));
  const hint = document.getElementById("hint");
  if (hint) {
    hint.hidden = false;
    document.getElementById("whole").onclick = () => show(0, end);
    const failure = document.getElementById("failure");
    if (data.failure) {
      failure.hidden = false;
      failure.onclick = () => show(data.failure[0], data.failure[1]);
    } else failure.previousSibling.textContent = ", or double-click";
  }
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView({ block: "nearest" }); }
  };
  addEventListener("hashchange", unfold);
  for (const link of svg.querySelectorAll("a")) link.addEventListener("click", () => setTimeout(unfold));
  unfold();
  for (const details of document.querySelectorAll("details[data-from]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Show on the timeline";
    button.onclick = () => {
      const a = +details.dataset.from, b = +details.dataset.to, around = Math.max(5, (b - a) / 2);
      show(a - around, b + around);
      svg.scrollIntoView({ block: "center" });
    };
    details.querySelector("summary").after(button);
  }
})();
