/* The measuring stick: what a userspace tunnel could reach on this machine, and no product.
 *
 * A TAP with virtio headers and TSO; one read of up to 64 kB, cut into packets with checksums of their own, an 8-octet header in
 * front of each, one sendmsg with UDP_SEGMENT; on the other side UDP_GRO, coalescing, one writev to the TAP. IPv4 TCP is cut and
 * joined; everything else passes one by one. No crypto, no routing, no peers, no checks: a ceiling for those who do have them.
 *
 * usage: stick INTERFACE LOCAL REMOTE PORT      build: cc -O3 -o stick stick.c -lpthread
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
enum { VNET = 10, ETH = 14, HEAD = 8, MAX_SEGMENTS = 64, MAX_SEND = 65000, BUFFER = 70000 };

static int tap, sock;

static void die(const char *what) { perror(what); exit(1); }
static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static void put16(uint8_t *p, unsigned v) { p[0] = v >> 8; p[1] = v; }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static void put32(uint8_t *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }

static uint64_t sum(const uint8_t *p, size_t n, uint64_t s) {
    for (; n >= 4; p += 4, n -= 4) { uint32_t v; memcpy(&v, p, 4); s += v; }
    if (n & 2) { uint16_t v; memcpy(&v, p, 2); s += v; p += 2; }
    if (n & 1) s += *p;
    return s;
}
static uint16_t fold(uint64_t s) { while (s >> 16) s = (s & 0xffff) + (s >> 16); return (uint16_t)s; }
static void store(uint8_t *p, uint64_t s) { uint16_t c = (uint16_t)~fold(s); memcpy(p, &c, 2); }
static uint64_t pseudo(const uint8_t *ip, size_t l4) { return sum(ip + 12, 8, htons(ip[9]) + htons((uint16_t)l4)); }

/* ---- out: TAP -> underlay ---- */
static uint8_t out[BUFFER];
static size_t out_len, out_segment, out_count;

static void flush_out(void) {
    if (!out_count) return;
    union { char b[CMSG_SPACE(2)]; struct cmsghdr align; } control = {{0}};
    struct iovec io = {out, out_len};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (out_count > 1) {
        m.msg_control = control.b; m.msg_controllen = sizeof control.b;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_UDP; c->cmsg_type = UDP_SEGMENT; c->cmsg_len = CMSG_LEN(2);
        uint16_t size = (uint16_t)out_segment; memcpy(CMSG_DATA(c), &size, 2);
    }
    if (sendmsg(sock, &m, 0) < 0 && errno != ECONNREFUSED && errno != ENOBUFS) perror("sendmsg");
    out_len = out_count = 0;
}
static void append(const uint8_t *head, size_t head_len, const uint8_t *data, size_t len) {
    size_t n = HEAD + head_len + len;
    if (out_count && (n > out_segment || out_len + n > MAX_SEND || out_count == MAX_SEGMENTS)) flush_out();
    if (!out_count) out_segment = n;
    memset(out + out_len, 0, HEAD);
    memcpy(out + out_len + HEAD, head, head_len);
    memcpy(out + out_len + HEAD + head_len, data, len);
    out_len += n; out_count++;
    if (n < out_segment) flush_out();
}
static void segment(uint8_t *frame, size_t n) {
    struct virtio_net_hdr v; memcpy(&v, frame, VNET);
    if (n < VNET + ETH + 20 || get16(frame + VNET + 12) != 0x0800) return;
    uint8_t *ip = frame + VNET + ETH; n -= VNET + ETH;
    size_t ihl = (ip[0] & 15) * 4u;
    if ((v.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) != VIRTIO_NET_HDR_GSO_TCPV4) {
        if (v.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
            size_t start = v.csum_start - ETH;
            store(ip + start + v.csum_offset, sum(ip + start, n - start, 0));
        }
        append(ip, ihl, ip + ihl, n - ihl);
        flush_out();
        return;
    }
    size_t head_len = ihl + (ip[ihl + 12] >> 4) * 4u, mss = v.gso_size;
    uint8_t h[128]; memcpy(h, ip, head_len);
    uint32_t seq = get32(ip + ihl + 4); uint16_t id = get16(ip + 4); uint8_t flags = ip[ihl + 13];
    for (size_t at = head_len, i = 0; at < n; at += mss, i++) {
        size_t len = n - at < mss ? n - at : mss; int last = at + len >= n;
        put16(h + 2, head_len + len); put16(h + 4, id + i); put16(h + 10, 0); store(h + 10, sum(h, ihl, 0));
        put32(h + ihl + 4, seq + i * mss); h[ihl + 13] = flags & (last ? 0xff : ~0x09); put16(h + ihl + 16, 0);
        store(h + ihl + 16, sum(ip + at, len, sum(h + ihl, head_len - ihl, pseudo(h, head_len - ihl + len))));
        append(h, head_len, ip + at, len);
    }
    flush_out();
}
__attribute__((noreturn)) static void *outbound(void *unused) {
    static uint8_t frame[BUFFER]; struct pollfd p = {tap, POLLIN, 0}; (void)unused;
    for (;;) {
        ssize_t n = read(tap, frame, sizeof frame);
        if (n > 0) segment(frame, (size_t)n);
        else if (errno == EAGAIN) poll(&p, 1, -1);
        else die("read");
    }
}

/* ---- in: underlay -> TAP ---- */
static struct iovec parts[MAX_SEGMENTS + 4];
static int part_count, packets;
static uint8_t prefix[VNET + ETH], *first;
static size_t first_head, first_len, total; static uint32_t next_seq;

static void flush_in(void) {
    if (!packets) return;
    struct virtio_net_hdr v = {0}; size_t ihl = (first[0] & 15) * 4u;
    if (packets > 1) {
        put16(first + 2, first_head + total); put16(first + 10, 0); store(first + 10, sum(first, ihl, 0));
        uint16_t c = fold(pseudo(first, first_head - ihl + total)); memcpy(first + ihl + 16, &c, 2);
        v = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
            .hdr_len = (uint16_t)(ETH + first_head), .gso_size = (uint16_t)first_len, .csum_start = (uint16_t)(ETH + ihl), .csum_offset = 16};
    }
    memcpy(prefix, &v, VNET);
    if (writev(tap, parts, part_count) < 0 && errno != EINVAL && errno != EAGAIN) perror("writev");
    packets = 0;
}
static void join(uint8_t *p, size_t n) {
    if (n < 40 || p[0] >> 4 != 4) return;
    size_t ihl = (p[0] & 15) * 4u, head = p[9] == 6 ? ihl + (p[ihl + 12] >> 4) * 4u : ihl; uint8_t flags = p[ihl + 13];
    int joinable = p[9] == 6 && head < n && !(flags & 0xe6);
    size_t len = n - head; uint32_t seq = get32(p + ihl + 4);
    if (packets && joinable && head == first_head && len <= first_len && seq == next_seq && total + len + head < 65000 && packets < MAX_SEGMENTS
        && !memcmp(p + 12, first + 12, ihl - 12 + 4) && !memcmp(p + ihl + 8, first + ihl + 8, 4) && !memcmp(p + ihl + 20, first + ihl + 20, head - ihl - 20)) {
        parts[part_count++] = (struct iovec){p + head, len};
        packets++; total += len; next_seq += (uint32_t)len; first[ihl + 13] |= flags & 8;
        if (len < first_len) flush_in();
        return;
    }
    flush_in();
    parts[0] = (struct iovec){prefix, sizeof prefix}; parts[1] = (struct iovec){p, head}; parts[2] = (struct iovec){p + head, len}; part_count = 3;
    first = p; first_head = head; first_len = total = len; next_seq = seq + (uint32_t)len; packets = 1;
    if (!joinable) flush_in();
}
static void inbound(void) {
    static uint8_t b[BUFFER];
    for (;;) {
        union { char b[64]; struct cmsghdr align; } control;
        struct iovec io = {b, sizeof b};
        struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control.b, .msg_controllen = sizeof control.b};
        ssize_t n = recvmsg(sock, &m, 0);
        if (n < 0) { if (errno == ECONNREFUSED) continue; die("recvmsg"); }
        int size = (int)n;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
            if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) memcpy(&size, CMSG_DATA(c), sizeof size);
        for (ssize_t at = 0; at + HEAD < n; at += size) join(b + at + HEAD, (size_t)(n - at < size ? n - at : size) - HEAD);
        flush_in();
    }
}

int main(int argc, char **argv) {
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    if (argc < 5) { fprintf(stderr, "usage: stick INTERFACE LOCAL REMOTE PORT\n"); return 2; }
    struct ifreq r = {0}; strncpy(r.ifr_name, argv[1], IFNAMSIZ - 1); r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if ((tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0 || ioctl(tap, TUNSETIFF, &r) < 0) die("tap");
    if (ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0) die("offload");
    sock = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&r.ifr_ifru, 0, sizeof r.ifr_ifru); r.ifr_hwaddr.sa_family = 1; memcpy(r.ifr_hwaddr.sa_data, mac, 6);
    if (ioctl(sock, SIOCSIFHWADDR, &r) < 0) die("mac");
    memcpy(prefix + VNET, mac, 6); memcpy(prefix + VNET + 6, mac, 6); prefix[VNET + 12] = 8;
    int one = 1, size = 4 << 20;
    setsockopt(sock, SOL_UDP, UDP_GRO, &one, sizeof one);
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size); setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    struct sockaddr_in l = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4])), .sin_addr.s_addr = inet_addr(argv[2])}, p = l;
    p.sin_addr.s_addr = inet_addr(argv[3]);
    if (bind(sock, (void *)&l, sizeof l) || connect(sock, (void *)&p, sizeof p)) die("socket");
    pthread_t t; pthread_create(&t, 0, outbound, 0);
    inbound();
}
