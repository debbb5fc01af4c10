// The browser, what a check prints, and a page with everything it complains of.
import fs from "node:fs";
import path from "node:path";
import puppeteer from "puppeteer-core";

export const [dir, ...runs] = process.argv.slice(2).map((p) => path.resolve(p));
export const shots = path.join(dir, "screenshots");
export const downloads = path.join(dir, "downloads");
for (const folder of [shots, downloads]) fs.mkdirSync(folder, { recursive: true });
export const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, protocolTimeout: 240_000,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"],
});

export const tally = { done: 0, failed: 0 };
let last = Date.now();
/** The checks that took longest, in milliseconds since the one before. */
export const slowest = [];

export function check(name, ok, figure = "") {
  tally.done++;
  if (!ok) tally.failed++;
  slowest.push([name, Date.now() - last]);
  last = Date.now();
  console.log(`${ok ? "ok  " : "FAIL"} ${name}${figure === "" ? "" : `: ${figure}`}`);
}
export const sleep = (ms) => new Promise((go) => setTimeout(go, ms));

/** A page offline, with everything it complains of. */
export async function open(file, { width = 1400, scheme = "light", scripts = true, hash = "" } = {}) {
  const page = await browser.newPage();
  const seen = { requests: [], errors: [], dialogs: 0 };
  page.on("request", (r) => { if (!/^(data|blob):/.test(r.url())) seen.requests.push(r.url()); });
  page.on("console", (m) => { if (m.type() === "error" || /Content.Security.Policy/i.test(m.text())) seen.errors.push(m.text()); });
  page.on("pageerror", (e) => seen.errors.push(e.message));
  page.on("dialog", (d) => { seen.dialogs++; d.dismiss(); });
  await page.setJavaScriptEnabled(scripts);
  await page.setOfflineMode(true);
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.evaluateOnNewDocument(() => {
    window.__csp = [];
    addEventListener("securitypolicyviolation", (e) => window.__csp.push(e.violatedDirective));
  });
  const begun = Date.now();
  await page.goto(`file://${file}${hash}`, { timeout: 60_000 });
  if (scripts) await page.evaluate(() => window.__report?.ready);
  return Object.assign(page, { seen, took: Date.now() - begun });
}
export const drawAll = (page) => page.evaluate(() => window.__report?.drawAll?.());
