// Draws each figure from the JSON beside it, again when the colour scheme, the width class or the medium changes.
"use strict";
(() => {
  const twins = JSON.parse(document.getElementById("dark-twins").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const paper = 680; // px: the text width of a printed A4 page
  let printing = false;

  const specification = (figure) => {
    let text = figure.querySelector("script").textContent;
    if (dark.matches && !printing) text = text.replace(/#[0-9a-f]{6}/g, (hex) => twins[hex] ?? hex);
    const { data, layout } = JSON.parse(text);
    if (printing) layout.width = paper;
    if (narrow.matches && !printing) layout.font = { size: 11 };
    return { data, layout };
  };
  const draw = (figure) => {
    const { data, layout } = specification(figure);
    const config = { displayModeBar: false, responsive: true };
    Plotly.react(figure.querySelector(".plot"), data, layout, config);
  };
  const drawAll = () => document.querySelectorAll("figure").forEach(draw);

  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { printing = true; drawAll(); });
  addEventListener("afterprint", () => { printing = false; drawAll(); });
  drawAll();
})();
