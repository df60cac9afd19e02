// The binary form of what the API answers (`format=packed`): a head in JSON, and columns that are used as they stand.
// `probe-user/src/export/flamegraph/packed.rs` says how the bytes are laid out.

import { Damaged } from './damaged'
import type { Texts } from './texts'

const MAGIC = 'probecol'
const VERSION = 1
const ALIGNMENT = 8
/** Of bytes before the head. */
const PREFIX = 16

const TYPES = { utf8: Uint8Array, u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f64: Float64Array } as const
type Type = keyof typeof TYPES

interface Place { name: string, type: Type, length: number }

/** The object that the JSON form holds, with typed arrays for its lists of numbers and `Texts` for its strings. */
export function unpack(buffer: ArrayBuffer): unknown {
  const text = (from: number, length: number) => {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(new Uint8Array(buffer, from, length))
    } catch {
      throw new Damaged('it holds what is no text')
    }
  }
  if (buffer.byteLength < PREFIX || text(0, MAGIC.length) !== MAGIC) throw new Damaged('it is no packed profile')
  const prefix = new DataView(buffer)
  const version = prefix.getUint32(8, true), length = prefix.getUint32(12, true)
  if (version !== VERSION) throw new Damaged(`its version is ${version}, this page reads ${VERSION}: reload the page`)
  if (length > buffer.byteLength - PREFIX) throw new Damaged('it is cut off')
  const { places, rest } = headOf(text(PREFIX, length))
  let at = PREFIX + length
  let all = ''
  for (const { name, type, length } of places) {
    at = Math.ceil(at / ALIGNMENT) * ALIGNMENT
    const bytes = length * TYPES[type].BYTES_PER_ELEMENT
    if (bytes > buffer.byteLength - at) throw new Damaged(`it is cut off within ${name}`)
    if (type === 'utf8') all = text(at, length)
    else put(rest, name, new TYPES[type](buffer, at, length))
    at += bytes
  }
  const { ends } = (rest['strings'] ?? {}) as { ends?: ArrayLike<number> }
  if (!ends) throw new Damaged('it has no strings')
  rest['strings'] = { all, ends: new Uint32Array(ends) } satisfies Texts
  return rest
}

function headOf(text: string): { places: Place[], rest: Record<string, unknown> } {
  let head: unknown
  try {
    head = JSON.parse(text)
  } catch {
    head = null
  }
  const { columns, ...others } = (head ?? {}) as Record<string, unknown>
  if (!Array.isArray(columns)) throw new Damaged('its head cannot be read')
  const places = columns.map((place: Partial<Place> | null): Place => {
    const { name, type, length } = place ?? {}
    const isLength = typeof length === 'number' && Number.isInteger(length) && length >= 0
    if (typeof name !== 'string' || type === undefined || !Object.hasOwn(TYPES, type) || !isLength) throw new Damaged('its head names a column that makes no sense')
    return { name, type, length }
  })
  // Without a prototype, because the names in it are not ours.
  return { places, rest: Object.assign(Object.create(null) as Record<string, unknown>, others) }
}

/** Puts a column where the JSON form has it: `nodes.parent`. */
function put(rest: Record<string, unknown>, name: string, column: unknown): void {
  const [table = '', field] = name.split('.')
  if (field === undefined) throw new Damaged(`its head names a column ${name}`)
  const known = rest[table]
  const holder: Record<string, unknown> = typeof known === 'object' && known !== null && !Array.isArray(known)
    ? known as Record<string, unknown>
    : Object.create(null) as Record<string, unknown>
  holder[field] = column
  rest[table] = holder
}
