// What a person who sees little, or has no mouse, would meet on a page: looked for in both colour schemes, in a narrow
// and in a wide window.

const SCHEMES = ['light', 'dark'];
const WIDTHS = [390, 1280];

/** What is wrong with the page, in words; empty if nothing is. */
export async function inspect(page) {
  const before = page.viewportSize();
  const problems = new Set();
  // Without motion a change of scheme is there at once, and colours in between are not measured.
  await page.emulateMedia({ reducedMotion: 'reduce' });
  if (await page.evaluate(moves)) problems.add('something moves although less motion is wanted');
  for (const scheme of SCHEMES) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: before.height });
      for (const problem of await page.evaluate(look)) problems.add(`${problem} (${scheme}, ${width} pixels)`);
    }
  }
  // Paper is white, whatever the screen's scheme.
  await page.emulateMedia({ media: 'print', colorScheme: 'dark', reducedMotion: 'reduce' });
  for (const problem of await page.evaluate(look)) problems.add(`${problem} (print)`);
  await page.emulateMedia({ media: null, colorScheme: null, reducedMotion: null });
  await page.setViewportSize(before);
  return [...problems];
}

/** Runs in the page. */
function look() {
  const problems = [];
  const shown = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility === 'visible';
  const outline = (element) => element.cloneNode(false).outerHTML.slice(0, 80);

  // WCAG 2.2, 1.4.3: text against its ground.
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const contrast = (a, b) => {
    const [darker, lighter] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (lighter + 0.05) / (darker + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    const element = texts.currentNode.parentElement;
    if (text === '' || !shown(element) || element.closest('noscript, :disabled')) continue;
    const ratio = contrast(channels(getComputedStyle(element).color), ground(element));
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  }

  // 1.4.10: nothing is wider than the window.
  const beyond = document.documentElement.scrollWidth - window.innerWidth;
  if (beyond > 0) problems.push(`${beyond} pixels wider than the window`);

  // 1.3.1, 2.4.6: headings in order, one of the first rank.
  let rank = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
    const own = Number(heading.tagName[1]);
    if (own > rank + 1) problems.push(`${heading.tagName} after H${rank}`);
    rank = own;
  }
  if (document.querySelectorAll('h1').length !== 1) problems.push('not one H1');

  // 3.1.1, 2.4.2
  if (!document.documentElement.lang) problems.push('no language');
  if (!document.title) problems.push('no title');

  // 4.1.2: everything that can be used has a name.
  const named = (element) =>
    element.textContent.trim() !== '' || element.getAttribute('aria-label') || element.labels?.length > 0;
  for (const element of document.querySelectorAll('a, button, summary, input:not([type=hidden]), select, textarea')) {
    if (!named(element)) problems.push(`no name: ${outline(element)}`);
    if (element.tabIndex > 0) problems.push(`an order of its own: ${outline(element)}`);
    // 2.5.8: big enough to be hit; a box may be small if its label is not.
    const target = element.labels?.[0] ?? element;
    const { width, height } = target.getBoundingClientRect();
    if (shown(element) && Math.min(width, height) < 24) problems.push(`${width} by ${height} pixels: ${outline(element)}`);
  }

  // References lead somewhere, and to one place.
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`two of id ${id}`);
  for (const name of ['for', 'aria-describedby', 'aria-labelledby', 'aria-controls']) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(/\s+/).filter(Boolean)) {
        if (!ids.includes(id)) problems.push(`${name} names no element: ${id}`);
      }
    }
  }
  return problems;
}

/** Runs in the page: whether anything takes time to change. */
function moves() {
  return [...document.querySelectorAll('*')].some((element) => {
    const { transitionDuration, animationName } = getComputedStyle(element);
    return animationName !== 'none' || transitionDuration.split(',').some((time) => parseFloat(time) > 0);
  });
}

/** Presses Tab until the element has the focus, as somebody without a mouse does; it must be seen to have it. */
export async function tabTo(page, testid) {
  for (let pressed = 0; pressed < 60; pressed += 1) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { testid: element.dataset?.testid, ring: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 };
    });
    if (focused.testid === undefined || focused.testid !== testid) continue;
    if (!focused.ring) throw new Error(`${testid} has the focus and does not show it`);
    return;
  }
  throw new Error(`the Tab key does not lead to ${testid}`);
}
