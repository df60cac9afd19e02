// Which page is shown for which path. Pages are loaded when they are opened, so that the first one comes quickly. The
// server has the same list of paths (`serve/app.rs`).

import { createRouter, createWebHistory } from 'vue-router'

declare module 'vue-router' {
  interface RouteMeta {
    title: string
  }
}

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', alias: '/targets', name: 'targets', component: () => import('./views/TargetsView.vue'), meta: { title: 'Targets' } },
    { path: '/targets/:name', name: 'target', component: () => import('./views/TargetView.vue'), props: true, meta: { title: 'Target' } },
    { path: '/snapshots', name: 'snapshots', component: () => import('./views/SnapshotsView.vue'), meta: { title: 'Snapshots' } },
    { path: '/snapshots/:id', name: 'snapshot', component: () => import('./views/SnapshotView.vue'), props: true, meta: { title: 'Snapshot' } },
    { path: '/alerts', name: 'alerts', component: () => import('./views/AlertsView.vue'), meta: { title: 'Alerts' } },
    { path: '/rules', name: 'rules', component: () => import('./views/RulesView.vue'), meta: { title: 'Rules' } },
    { path: '/functions', name: 'functions', component: () => import('./views/FunctionsView.vue'), meta: { title: 'Functions' } },
    { path: '/health', name: 'health', component: () => import('./views/HealthView.vue'), meta: { title: 'Health' } },
    { path: '/view', name: 'view', component: () => import('./views/FileView.vue'), meta: { title: 'Profile' } },
    { path: '/:path(.*)*', name: 'missing', component: () => import('./views/MissingView.vue'), meta: { title: 'Not found' } },
  ],
  scrollBehavior: (to, from, saved) => saved ?? (to.path === from.path ? false : { top: 0 }),
})

router.afterEach((to, from) => {
  if (to.path !== from.path) document.title = `${to.meta.title} · probe`
})
