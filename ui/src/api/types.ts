// What the API gives, by names of its own: `schema.ts` is made of the OpenAPI document that the server serves, whose schemas are
// in `ui/openapi.json` (a test of the server keeps that current, `npm run schema` makes the other of it).

import type { components } from './schema'

type Schemas = components['schemas']

export type SnapshotSummary = Schemas['SnapshotSummary']
export type SnapshotList = Schemas['List']
export type Row = Schemas['Row']
export type Culprit = Schemas['Culprit']
export type Figure = Schemas['Figure']
export type Sidecar = Schemas['Sidecar']
export type SnapshotThread = Sidecar['threads'][number]
export type Firing = Schemas['Firing']
export type Status = Schemas['Status']
export type Alert = Schemas['Alert']
export type ProcessState = Schemas['ProcessState']
export type TargetState = Schemas['TargetState']
export type TargetList = Schemas['TargetList']
export type ThreadList = Schemas['ThreadList']
export type Thread = ThreadList['threads'][number]
export type FunctionState = Schemas['FunctionState']
export type RuleProcess = Schemas['RuleProcess']
export type RuleState = Schemas['RuleState']
export type EventKind = Schemas['EventKind']
export type Event = Schemas['Event']
/** RFC 9457. */
export type ProblemDocument = Schemas['Problem']

/** A rule or a function as the configuration has it. */
export type Definition = Record<string, unknown>
