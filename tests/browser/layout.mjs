// Opens workflows in both designs of nodes and says in JSON where everything stands and which text is cut.
// node layout.mjs URL SCREENSHOTS-PREFIX WORKFLOW.json ...

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { SETTLE, SHOWN, withPage } from "./page.mjs";

const [url, screenshots, ...workflows] = process.argv.slice(2);
const DESIGNS = { classic: false, modern: true };
const DRAWN = SETTLE / 2;

await withPage(
  url,
  async (page) => {
    const seen = {};
    for (const [design, modern] of Object.entries(DESIGNS)) {
      await page.evaluate((on) => app.extensionManager.setting.set("Comfy.VueNodes.Enabled", on), modern);
      await page.waitForTimeout(SETTLE);
      for (const path of workflows) {
        await page.evaluate((text) => app.loadGraphData(JSON.parse(text)), readFileSync(path, "utf8"));
        await page.waitForTimeout(DRAWN);
        await page.evaluate(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"));
        await page.waitForFunction(allThere, modern, { timeout: SHOWN });
        const name = basename(path, ".json");
        (seen[name] ??= {})[design] = await settled(page, () => page.evaluate(measured, modern));
        await page.screenshot({ path: `${screenshots}_${name.replaceAll(" ", "_")}_${design}.png` });
      }
    }
    console.log(JSON.stringify(seen));
  },
  { width: 1900, height: 1150 },
);

// What `look` says once it says the same twice: a busy machine draws late.
async function settled(page, look) {
  const end = Date.now() + SHOWN;
  for (let before = null; ; ) {
    await page.waitForTimeout(DRAWN);
    const now = await look();
    if (JSON.stringify(now) === JSON.stringify(before) || Date.now() > end) return now;
    before = now;
  }
}

// These run in the page.

function allThere(modern) {
  return !modern || app.graph.nodes.every((node) => document.querySelector(`[data-node-id="${node.id}"]`));
}

function measured(modern) {
  const context = app.canvas.ctx;
  const drawn = app.graph.nodes.map((node) => {
    const element = modern ? document.querySelector(`[data-node-id="${node.id}"]`) : null;
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    // in the canvas's units, however far the page has zoomed by now
    const size = element ? [element.offsetWidth, element.offsetHeight] : [node.size[0], node.size[1] + title];
    const looked = element ? [...element.querySelectorAll("*")] : widgetElements(node);
    const cut = looked.filter(isCut).map(textOf);
    if (!element && widthOf(node.getTitle(), 14) + 45 > node.size[0]) cut.push(node.getTitle());
    return { name: `${node.id} ${node.getTitle()}`, box: [node.pos[0], node.pos[1] - title, ...size], cut };
  });
  const groups = app.graph.groups.map((group) => {
    const cut = widthOf(group.title, group.font_size) + 20 > group.size[0] ? [group.title] : [];
    return { name: group.title, box: [...group.pos, ...group.size], cut };
  });
  return { nodes: drawn, groups };

  function widgetElements(node) {
    const elements = (node.widgets ?? []).map((widget) => widget.element).filter(Boolean);
    return elements.flatMap((element) => [element, ...element.querySelectorAll("*")]);
  }

  function widthOf(text, size) {
    context.save();
    context.font = `${size}px Inter, Arial`;
    const { width } = context.measureText(text);
    context.restore();
    return width;
  }

  function textOf(element) {
    return String(element.value ?? element.innerText ?? "").trim().slice(0, 60);
  }

  // Text that needs more room than its element shows, of what can be seen.
  function isCut(element) {
    const style = getComputedStyle(element);
    if (!textOf(element) || !element.clientWidth || style.visibility === "hidden" || style.opacity === "0") return false;
    // the source behind a note, which is shown as it reads
    if (element.tagName === "TEXTAREA" && element.closest(".comfy-markdown")) return false;
    const wide = style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1;
    const tall = style.overflowY !== "visible" && element.scrollHeight > element.clientHeight + 1;
    return wide || tall;
  }
}
