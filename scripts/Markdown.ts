/** Tables of Markdown. */

const cell = (text: string): string => text.replaceAll("|", "\\|").replaceAll("\n", " ")

const row = (cells: ReadonlyArray<string>): string => `| ${cells.map(cell).join(" | ")} |`

/** The lines of a table: its head, and a line for each row, with as many cells each. */
export const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): ReadonlyArray<string> => [row(head), `|${head.map(() => "---|").join("")}`, ...rows.map(row)]
