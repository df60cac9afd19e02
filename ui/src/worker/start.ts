// The worker of the application; exported pages have none.

export const startWorker = () => new Worker(new URL('./layout.worker.ts', import.meta.url), { type: 'module' })
