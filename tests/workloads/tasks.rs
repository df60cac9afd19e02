//! Asynchronous work without a library: two threads poll tasks that sleep five milliseconds twice, so that a task begins in
//! one thread and may end in another.

use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Sleep(Instant);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.0 {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

pub struct Request {
    id: u64,
}

#[inline(never)]
pub fn accepted(request: &Request) -> u64 {
    black_box(request).id
}

#[inline(never)]
pub fn answered(id: u64) -> u64 {
    black_box(id)
}

#[inline(never)]
async fn handle(request: Box<Request>) {
    let begin = Instant::now();
    accepted(&request);
    Sleep(Instant::now() + Duration::from_millis(5)).await;
    Sleep(Instant::now() + Duration::from_millis(5)).await;
    answered(request.id);
    // By its own clock: where others keep the machine busy, it sleeps for longer than it asked for.
    println!("told task {}", begin.elapsed().as_nanos());
}

#[derive(Default)]
struct Queue {
    tasks: Mutex<VecDeque<Task>>,
    changed: Condvar,
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn works(queue: &Queue) {
    let waker = Waker::from(Arc::new(Nobody));
    loop {
        let mut tasks = queue.tasks.lock().expect("nobody panics");
        let mut task = loop {
            match tasks.pop_front() {
                Some(task) => break task,
                None => tasks = queue.changed.wait(tasks).expect("nobody panics"),
            }
        };
        drop(tasks);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            queue.tasks.lock().expect("nobody panics").push_back(task);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn main() {
    println!("ready");
    std::io::stdout().flush().expect("the test reads it");
    let queue = Arc::new(Queue::default());
    for _ in 0..2 {
        let queue = queue.clone();
        std::thread::spawn(move || works(&queue));
    }
    for id in 1.. {
        queue.tasks.lock().expect("nobody panics").push_back(Box::pin(handle(Box::new(Request { id }))));
        queue.changed.notify_one();
        std::thread::sleep(Duration::from_millis(15));
    }
}
