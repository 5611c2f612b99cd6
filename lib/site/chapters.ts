/** What pages beside the chapters say and show of them, taken from the stored notebooks. */

import { basename, join } from "node:path";

/** A chapter, as far as other pages speak of it. */
export interface Chapter {
  /** `04_batching` */
  name: string;
  /** `04 Batching: many passengers, one trip` */
  title: string;
  /** The text between its title and its first code, by paragraphs. */
  opening: string[];
  /** The charts in it, as SVG. */
  pictures: string[];
}

interface Cell {
  source: string[];
  outputs?: { data?: { "image/svg+xml"?: string | string[] } }[];
}

/** All chapters of a folder, in order. */
export async function readChapters(folder: string): Promise<Chapter[]> {
  const files = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name)
    .filter((name) => name.endsWith(".ipynb")).sort();
  return await Promise.all(files.map(async (file) => {
    const { cells }: { cells: Cell[] } = JSON.parse(await Deno.readTextFile(join(folder, file)));
    const name = basename(file, ".ipynb"), [heading, ...opening] = cells[0].source.join("").split(/\n\n+/);
    const outputs = cells.flatMap(({ outputs = [] }) => outputs);
    const pictures = outputs.map(({ data }) => [data?.["image/svg+xml"] ?? []].flat().join("")).filter(Boolean);
    return { name, title: `${name.slice(0, 2)} ${heading.replace(/^# /, "")}`, opening, pictures };
  }));
}

/** Writes into `folder` what pages include: a card for each chapter, what it teaches, and its pictures as slides. */
export async function writeAbout(chapters: readonly Chapter[], folder: string): Promise<void> {
  const pictures = join("_static", "slides");
  await Deno.mkdir(join(folder, pictures), { recursive: true });
  const slides = [];
  for (const { name, title, pictures: charts } of chapters) {
    slides.push(`## [${title}](notebooks/${name}.ipynb)`);
    for (const [i, svg] of charts.entries()) {
      const file = join(pictures, `${name}_${i + 1}.svg`);
      await Deno.writeTextFile(join(folder, file), slideSized(svg));
      slides.push(picture(file, svg));
    }
  }
  await Deno.writeTextFile(join(folder, "all_slides.md"), slides.join("\n\n") + "\n");
  await Deno.writeTextFile(join(folder, "cards.md"), cards(chapters));
  await Deno.writeTextFile(join(folder, "goals.md"), goals(chapters));
}

/** A card for each chapter: its picture, its title, its first sentences. */
function cards(chapters: readonly Chapter[]): string {
  const all = chapters.map(({ name, title, opening: [first] }) => {
    const options = [`link: notebooks/${name}`, "link-type: doc", `img-top: notebooks/images/${name}.svg`, "img-alt: "];
    const lines = options.map((option) => `:${option}`);
    return [`:::{grid-item-card} ${title}`, ...lines, "", sentences(first, 150), ":::"].join("\n");
  });
  return ["::::{grid} 1 1 2 2", ":gutter: 3", "", ...all, "::::", ""].join("\n");
}

/** The first sentences of a text, as few as have so many characters, without links: a card is one itself. */
function sentences(markdown: string, characters: number): string {
  const text = markdown.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1");
  const end = text.slice(characters).search(/[.?!]( |$)/);
  return end < 0 ? text : text.slice(0, characters + end + 1);
}

const GOAL = "**Afterwards you can** ";

/** What readers can do after each chapter. */
function goals(chapters: readonly Chapter[]): string {
  const lines = chapters.flatMap(({ name, title, opening }) => {
    const goal = opening.find((paragraph) => paragraph.startsWith(GOAL));
    return goal ? `- **[${title}](notebooks/${name}.ipynb)**: ${goal.slice(GOAL.length)}` : [];
  });
  return lines.join("\n") + "\n";
}

/** A picture as large as a slide of 1920 × 1080. */
function slideSized(svg: string): string {
  const [tag, width, height] = svg.match(/^<svg[^>]*? width="([\d.]+)" height="([\d.]+)"/) ?? [];
  if (!tag) throw new Error(`A picture says no size: ${svg.slice(0, 200)}`);
  const scale = Math.min(1920 / Number(width), 1080 / Number(height)),
    scaled = (size: string) => Math.round(Number(size) * scale);
  const sized = tag.replace(
    ` width="${width}" height="${height}"`,
    ` width="${scaled(width)}" height="${scaled(height)}"`,
  );
  return sized + svg.slice(tag.length);
}

/** A picture on a page, which opens alone. What it says in words is the SVG's own label. */
function picture(file: string, svg: string): string {
  const label = svg.match(/ aria-label="([^"]*)"/)?.[1] ?? "";
  return `\`\`\`{raw} html\n<figure class="chart"><a href="${file}"><img src="${file}" alt="${label}" loading="lazy"></a></figure>\n\`\`\``;
}
