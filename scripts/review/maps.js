for (const maps of document.querySelectorAll(".maps")) {
  const [box, words] = [maps.querySelector(".shown"), maps.querySelector("ol").children];
  const [sheet, text] = [box.querySelector("img"), box.querySelector("span")];
  const across = Number(maps.dataset.across);
  const drawn = [...maps.querySelectorAll("svg")].map(svg => {
    const points = new Map([...svg.querySelectorAll("circle")].map(point => [point.dataset.cell, point]));
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", 9);
    svg.append(ring);
    return {svg, points, ring};
  });
  let shown = null;
  const hide = () => {
    shown = null;
    box.hidden = true;
    for (const {ring} of drawn) ring.style.display = "none";
  };
  const show = point => {
    if (point === shown) return;
    shown = point;
    const cell = point.dataset.cell;
    text.textContent = words[cell].textContent;
    sheet.style.left = `${-100 * (cell % across)}%`;
    sheet.style.top = `${-100 * Math.floor(cell / across)}%`;
    for (const {points, ring} of drawn) {
      const own = points.get(cell);
      ring.style.display = own ? "" : "none";
      for (const name of own ? ["cx", "cy"] : []) ring.setAttribute(name, own.getAttribute(name));
    }
    box.hidden = false;
    const at = point.getBoundingClientRect();
    const right = document.documentElement.clientWidth - box.offsetWidth;
    const above = at.top - box.offsetHeight - 8;
    box.style.left = `${scrollX + Math.max(0, Math.min(at.right + 8, right))}px`;
    box.style.top = `${scrollY + (above < 0 ? at.bottom + 8 : above)}px`;
  };
  const place = point => [Number(point.getAttribute("cx")), Number(point.getAttribute("cy"))];
  const least = (points, measure) => points.reduce(
    (best, point) => (measure(point) < (best ? measure(best) : Infinity) ? point : best), null);
  for (const {svg, points} of drawn) {
    const all = [...points.values()];
    for (const point of all) {
      point.setAttribute("tabindex", -1);
      point.setAttribute("role", "img");
      point.setAttribute("aria-label", words[point.dataset.cell].textContent);
    }
    let stop = all[0];  // the one point of a map that the tab key comes to
    stop.setAttribute("tabindex", 0);
    const follow = event => {
      const matrix = svg.getScreenCTM().inverse();
      const {x, y} = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
      const distance = point => Math.hypot(place(point)[0] - x, place(point)[1] - y);
      const nearest = least(all, distance);
      if (distance(nearest) < 12 * matrix.a) show(nearest); else hide();  // 12 px, for a finger
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", event => { if (event.pointerType !== "touch") hide(); });
    svg.addEventListener("focusin", event => {
      stop.setAttribute("tabindex", -1);
      stop = event.target;
      stop.setAttribute("tabindex", 0);
      show(stop);
    });
    svg.addEventListener("focusout", event => { if (event.target === shown) hide(); });
    svg.addEventListener("keydown", event => {
      const keys = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
      if (!(event.key in keys)) return;
      event.preventDefault();
      const [[right, down], [x, y]] = [keys[event.key], place(event.target)];
      const next = least(all, point => {
        const [dx, dy] = [place(point)[0] - x, place(point)[1] - y];
        const [ahead, aside] = [dx * right + dy * down, Math.abs(dx * down - dy * right)];
        return ahead > 0 && aside <= ahead ? ahead + aside : Infinity;
      });
      if (next) next.focus();
    });
  }
  hide();
  document.addEventListener("pointerdown", event => { if (!maps.contains(event.target)) hide(); });
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
}
