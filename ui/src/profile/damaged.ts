/** What was answered does not hold together. */
export class Damaged extends Error {
  override name = 'Damaged'
}
