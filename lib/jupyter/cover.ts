/** The picture that stands for a notebook. */

/** A notebook of format 4, as far as its pictures are concerned. */
interface Notebook {
  cells: { metadata: { tags?: string[] }; outputs?: { data?: Record<string, unknown> }[] }[];
}

/** The SVG picture that the cell with the tag `cover` shows; undefined if there is no such cell or picture. */
export function coverOf({ cells }: Notebook): string | undefined {
  const cell = cells.find(({ metadata }) => metadata.tags?.includes("cover"));
  const picture = cell?.outputs?.map(({ data }) => data?.["image/svg+xml"]).find((picture) => picture !== undefined);
  return Array.isArray(picture) ? picture.join("") : picture as string | undefined;
}
