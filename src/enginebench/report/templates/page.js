// Draws the charts from the JSON beside them, and puts panels below each other where the page is narrow.
(() => {
  "use strict";
  const NARROW_PX = 640;
  const isNarrow = (div) => div.clientWidth < NARROW_PX;

  const place = (layout, places) => {
    for (const [key, value] of Object.entries(places)) {
      const [outer, inner] = key.split(".");
      if (inner) layout[outer][inner] = value;
      else layout[outer] = value;
    }
    return layout;
  };

  const draw = (holder) => {
    const spec = JSON.parse(holder.textContent);
    const div = document.getElementById(holder.dataset.chart);
    let narrow = isNarrow(div);
    Plotly.newPlot(div, spec.data, place(spec.layout, narrow ? spec.narrow : spec.wide), spec.config);
    new ResizeObserver(() => {
      if (isNarrow(div) === narrow) return;
      narrow = !narrow;
      Plotly.relayout(div, narrow ? spec.narrow : spec.wide);
    }).observe(div);
    return div;
  };

  const holders = [...document.querySelectorAll("script[data-chart]")];
  const drawn = [];
  const next = () => {
    const holder = holders.shift();
    if (!holder) {
      document.documentElement.dataset.charts = "drawn";
      return;
    }
    drawn.push(draw(holder));
    setTimeout(next);
  };
  next();

  addEventListener("beforeprint", () => {
    while (holders.length) drawn.push(draw(holders.shift()));
    drawn.forEach((div) => Plotly.relayout(div, { width: 1000 }));
  });
  addEventListener("afterprint", () => drawn.forEach((div) => Plotly.relayout(div, { width: null, autosize: true })));
})();
