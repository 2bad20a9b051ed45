'use strict';

// Returns the elements of the page that have less contrast with their background than WCAG 2.2's level AA requires (1.4.3, 1.4.11):
// 4.5 to 1, or 3 to 1 for large text and the lines of charts.
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });

  // rgba converts any CSS colour to [red, green, blue, alpha]. alpha is from 0 to 1, the others from 0 to 255.
  function rgba(color) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  const over = (top, ground) => [0, 1, 2].map((i) => top[i] * top[3] + ground[i] * (1 - top[3])).concat(1);

  function ground(element) {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(rgba(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), rgba('Canvas'));
  }

  function luminance(color) {
    const [r, g, b] = color.slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  const found = [];
  let looked = 0;

  function check(element, style, color, least, what) {
    const behind = ground(element);
    const [high, low] = [luminance(over(rgba(color), behind)), luminance(behind)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    looked += 1;
    if (ratio < least) found.push(`${ratio.toFixed(2)} < ${least}: ${element.tagName}.${element.getAttribute('class')} ${style.color} "${what}"`);
  }

  for (const element of document.body.querySelectorAll('*')) {
    const style = getComputedStyle(element);
    if (!element.checkVisibility({ visibilityProperty: true }) || element.disabled) continue;
    const text = [...element.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data.trim()).join(' ').trim();
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (text) check(element, style, style.color, large ? 3 : 4.5, text.slice(0, 40));
    if (element.placeholder) check(element, style, getComputedStyle(element, '::placeholder').color, 4.5, element.placeholder);
    if (element.matches('path.line')) check(element.closest('figure'), style, style.stroke, 3, element.dataset.line);
  }
  return { looked, found };
})();
