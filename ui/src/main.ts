import './theme.css'
import './worker/ahead'

import { createApp } from 'vue'

import App from './App.vue'
import { router } from './router'
import { follow } from './ui/theme'

follow()
createApp(App).use(router).mount('#app')
