// Drive one page of Chromium: one JSON order a line on stdin, one JSON answer a line on stdout.
// The browser ends with stdin, whoever closed it.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , playwright, executablePath, profile] = process.argv;
const { chromium } = (await import(pathToFileURL(playwright).href)).default;

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  viewport: { width: 1280, height: 1000 },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
  ],
});
const page = context.pages()[0] ?? (await context.newPage());

// A page without windows of its own would wait for ever behind one of the browser's.
page.on("dialog", (dialog) => dialog.accept());

const orders = {
  open: ({ url, timeout }) => page.goto(url, { timeout, waitUntil: "domcontentloaded" }),
  click: ({ selector, timeout }) => page.locator(selector).first().click({ timeout }),
  focus: ({ selector, timeout }) => page.locator(selector).first().focus({ timeout }),
  fill: ({ selector, text, timeout }) => page.locator(selector).first().fill(text, { timeout }),
  press: ({ keys }) => page.keyboard.press(keys),
  see: ({ selector, timeout }) =>
    page.locator(selector).first().waitFor({ state: "visible", timeout }),
  miss: ({ selector, timeout }) =>
    page.locator(selector).first().waitFor({ state: "hidden", timeout }),
  texts: ({ selector }) => page.locator(selector).allInnerTexts(),
  width: ({ selector, timeout }) =>
    page.locator(selector).first().evaluate((image) => image.naturalWidth, undefined, { timeout }),
  resize: ({ width, height }) => page.setViewportSize({ width, height }),
  picture: ({ path }) => page.screenshot({ path }),
};

async function obey(line) {
  const order = JSON.parse(line);
  try {
    const value = await orders[order.do](order);
    // Some answers are live objects of the page, which no JSON can hold.
    return { value: Array.isArray(value) || typeof value === "number" ? value : null };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
}

console.log(JSON.stringify({ value: "ready" }));
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await obey(line)));
}
await context.close();
