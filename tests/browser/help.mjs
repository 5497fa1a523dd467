// Opens the help of nodes in the front end's own panel, as a click on the i above a node does, and says what it shows.
// node help.mjs URL SCREENSHOTS-PREFIX NODE-TYPE ...

import { SETTLE, withPage } from "./page.mjs";

const [url, screenshots, ...types] = process.argv.slice(2);
const INFO = '[data-testid="info-button"]';

await withPage(url, async (page) => {
  const seen = {};
  for (const type of types) {
    await page.evaluate(select, type);
    await page.click(INFO);
    await page.waitForTimeout(SETTLE);
    seen[type] = await page.evaluate(shown);
    await page.screenshot({ path: `${screenshots}_${type}.png` });
  }
  console.log(JSON.stringify(seen));
});

// These run in the page.

function select(type) {
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  app.canvas.selectNode(node);
  app.canvas.centerOnNode(node);
}

function shown() {
  const pictures = [...document.querySelectorAll("img")].filter((img) => img.src.includes("/docs/"));
  return {
    titles: [...document.querySelectorAll("h1")].map((title) => title.innerText),
    pictures: pictures.map((img) => [img.src.split("/").pop(), img.naturalWidth]),
    tables: document.querySelectorAll("table").length,
  };
}
