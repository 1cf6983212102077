// unnamed: controls without a name that a screen reader could say.
() => [...document.querySelectorAll("button, a, input, select")]
  .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.title))
  .map((e) => e.outerHTML)

// plain: elements that can only have come from a text.
() => [...document.querySelectorAll(
  "#main script, #main img, #main iframe, #main b b, #main [onerror], #top img, dialog img",
)].map((e) => e.outerHTML)

// contrast: texts whose contrast with what lies behind them is below 4.5.
() => {
  const parse = (c) => {
    const n = (c.match(/[0-9.]+/g) || []).map(Number);
    const scale = c.startsWith("color(") ? 255 : 1;
    return [n[0] * scale, n[1] * scale, n[2] * scale, n[3] ?? 1];
  };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const linear = (x) => (x / 255 <= 0.03928 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4);
  const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const ground = (e) => {
    const layers = [];
    for (let n = e; n; n = n.parentElement) layers.push(parse(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]);
  };
  const left = "svg, [disabled], :disabled, option, .unseen, .curves-holder";
  const bad = [];
  for (const e of document.querySelectorAll("main *, #top *")) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!says || !e.checkVisibility() || e.closest(left)) continue;
    const back = ground(e);
    const [a, b] = [light(over(parse(getComputedStyle(e).color), back)), light(back)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) bad.push(`${e.className || e.tagName}: ${e.textContent.slice(0, 30)} ${contrast.toFixed(2)}`);
  }
  return [...new Set(bad)];
}
