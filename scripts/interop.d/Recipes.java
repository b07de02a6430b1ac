import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;

/** Curator's recipes on a live ensemble: arguments are two connect strings and a path. */
public class Recipes {
    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    static CuratorFramework client(String servers) throws Exception {
        CuratorFramework c = CuratorFrameworkFactory.builder().connectString(servers).sessionTimeoutMs(8000)
            .connectionTimeoutMs(8000).retryPolicy(new RetryOneTime(100)).build();
        c.start();
        check(c.blockUntilConnected(20, TimeUnit.SECONDS), "not connected to " + servers);
        return c;
    }

    public static void main(String[] args) throws Exception {
        CuratorFramework one = client(args[0]);
        CuratorFramework two = client(args[1]);
        String path = args[2];
        one.create().creatingParentContainersIfNeeded().forPath(path);

        LeaderLatch first = new LeaderLatch(one, path + "/latch", "one");
        LeaderLatch second = new LeaderLatch(two, path + "/latch", "two");
        first.start();
        check(first.await(20, TimeUnit.SECONDS), "the first latch leads");
        second.start();
        check(!second.await(200, TimeUnit.MILLISECONDS), "the second latch waits");
        first.close();
        check(second.await(20, TimeUnit.SECONDS), "the second latch leads after the first");
        second.close();
        System.out.println("ok leader latch");

        AtomicInteger inside = new AtomicInteger();
        AtomicInteger turns = new AtomicInteger();
        Thread[] threads = new Thread[4];
        for (int n = 0; n < threads.length; n++) {
            InterProcessMutex mutex = new InterProcessMutex(n % 2 == 0 ? one : two, path + "/lock");
            threads[n] = new Thread(() -> {
                try {
                    for (int turn = 0; turn < 5; turn++) {
                        mutex.acquire();
                        check(inside.incrementAndGet() == 1, "one at a time");
                        turns.incrementAndGet();
                        inside.decrementAndGet();
                        mutex.release();
                    }
                } catch (Exception e) {
                    throw new RuntimeException(e);
                }
            });
            threads[n].start();
        }
        for (Thread thread : threads) {
            thread.join(30000);
        }
        check(turns.get() == 20, "all turns taken: " + turns);
        System.out.println("ok lock");

        CountDownLatch created = new CountDownLatch(10);
        CountDownLatch deleted = new CountDownLatch(10);
        one.create().forPath(path + "/cache");
        two.sync().forPath(path);
        CuratorCache cache = CuratorCache.build(two, path + "/cache");
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forCreates(node -> { if (node.getPath().contains("/cache/")) created.countDown(); })
            .forDeletes(node -> deleted.countDown()).build());
        cache.start();
        for (int n = 0; n < 10; n++) {
            one.create().forPath(path + "/cache/" + n, new byte[] {(byte) n});
        }
        check(created.await(20, TimeUnit.SECONDS), "the cache sees the creates");
        for (int n = 0; n < 10; n++) {
            one.delete().forPath(path + "/cache/" + n);
        }
        check(deleted.await(20, TimeUnit.SECONDS), "the cache sees the deletes");
        cache.close();
        System.out.println("ok cache");

        PersistentNode node = new PersistentNode(two, CreateMode.EPHEMERAL, false, path + "/node", "n".getBytes());
        node.start();
        check(node.waitForInitialCreate(20, TimeUnit.SECONDS), "the ephemeral node is made");
        one.sync().forPath(path);
        check(one.checkExists().forPath(path + "/node").getEphemeralOwner() == two.getZookeeperClient().getZooKeeper().getSessionId(),
            "its owner is the session");
        node.close();
        DistributedAtomicLong number = new DistributedAtomicLong(one, path + "/number", new RetryNTimes(10, 10));
        for (int n = 0; n < 10; n++) {
            check(number.increment().succeeded(), "increment");
        }
        check(number.get().postValue() == 10, "the sum");
        one.transaction().forOperations(one.transactionOp().create().forPath(path + "/tx"),
            one.transactionOp().setData().forPath(path + "/tx", "x".getBytes()), one.transactionOp().delete().forPath(path + "/tx"));
        System.out.println("ok node, number, transaction");
        one.close();
        two.close();
    }
}
