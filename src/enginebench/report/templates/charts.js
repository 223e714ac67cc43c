// Draws the charts when they come into view, and puts their plots below each other where the page is narrow.
(() => {
  "use strict";
  const NARROW_PX = 640;
  const holders = new Map([...document.querySelectorAll("script[data-chart]")].map((one) => [one.dataset.chart, one]));
  const isNarrow = (div) => div.clientWidth < NARROW_PX;
  const drawn = [];

  const place = (layout, places) => {
    for (const [key, value] of Object.entries(places)) {
      const [outer, inner] = key.split(".");
      if (inner) layout[outer][inner] = value;
      else layout[outer] = value;
    }
    return layout;
  };

  const draw = (div) => {
    const holder = holders.get(div.id);
    if (!holder) return;
    holders.delete(div.id);
    const spec = JSON.parse(holder.textContent);
    let narrow = isNarrow(div);
    Plotly.newPlot(div, spec.data, place(spec.layout, narrow ? spec.narrow : spec.wide), spec.config).then(() => {
      div.dataset.drawn = "";
    });
    new ResizeObserver(() => {
      if (isNarrow(div) === narrow) return;
      narrow = !narrow;
      Plotly.relayout(div, narrow ? spec.narrow : spec.wide);
    }).observe(div);
    drawn.push(div);
  };

  const unpacked = async (id) => {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (one) => one.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  let loading;
  const load = () =>
    (loading ??= unpacked("plotly-gz").then((code) => {
      const script = document.createElement("script");
      script.textContent = code;
      document.head.append(script);
    }));

  const failed = (error) => {
    for (const id of holders.keys())
      document.getElementById(id).textContent = `This browser cannot draw the chart (${error}); the table below has its numbers.`;
  };

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((one) => one.isIntersecting)) {
        near.unobserve(target);
        load().then(() => draw(target), failed);
      }
    },
    { rootMargin: "400px" },
  );
  {
    holders.forEach((_, id) => near.observe(document.getElementById(id)));
    (window.requestIdleCallback ?? setTimeout)(() => load().catch(failed)); // so that printing finds it there
  }

  addEventListener("beforeprint", () => {
    if (window.Plotly) [...holders.keys()].forEach((id) => draw(document.getElementById(id)));
    drawn.forEach((div) => Plotly.relayout(div, { width: 1000 }));
  });
  addEventListener("afterprint", () => drawn.forEach((div) => Plotly.relayout(div, { width: null, autosize: true })));
})();
