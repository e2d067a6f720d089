// What every client of esperd in C++ needs: the signature, the errors, one daemon. Copy it beside your policy.
//
// Knows nothing of any policy. The signing recipe is in esperd/docs/write-a-policy.md.

#pragma once

#include <grpcpp/grpcpp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "esper/leyline/v1/server_service.grpc.pb.h"
#include "google/rpc/code.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace leyline {

namespace v1 = esper::leyline::v1;

inline std::string signature(const std::string& secret, const std::string& header, const std::string& payload) {
  static const char domain[] = "ESPER-LEYLINE-REQUEST-V1";
  std::string input(domain, sizeof domain);  // the zero byte at its end is a part of it
  for (const std::string* part : {&header, &payload}) {
    const uint64_t length = part->size();
    for (int shift = 56; shift >= 0; shift -= 8) input += static_cast<char>(length >> shift);
    input += *part;
  }
  std::string mac(32, '\0');
  const auto bytes = [](auto& text) { return reinterpret_cast<unsigned char*>(text.data()); };
  HMAC(EVP_sha256(), secret.data(), secret.size(), bytes(input), input.size(), bytes(mac), nullptr);
  return mac;
}

inline std::string random_bytes(int size) {
  std::vector<unsigned char> bytes(size);
  if (RAND_bytes(bytes.data(), size) != 1) throw std::runtime_error("no random bytes");
  return {bytes.begin(), bytes.end()};
}

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

inline std::string to_hex(const std::string& bytes) {
  std::string hex;
  for (unsigned char byte : bytes) hex += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  return hex;
}

// A call that came to nothing. `reason` is the catalogue's, and empty when no daemon answered.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
  google::rpc::Code status = google::rpc::UNKNOWN;
  std::string reason;
  std::map<std::string, std::string> metadata;
  std::optional<double> retry_after_s;
  std::vector<std::string> violations;  // the fields that are wrong

  // Whether to come back: the daemon says when, the connection broke, or a watch was read too slowly and resumes.
  bool may_pass() const {
    const bool is_cut = status == google::rpc::UNAVAILABLE || status == google::rpc::CANCELLED ||
                        status == google::rpc::INTERNAL || status == google::rpc::UNKNOWN;
    return retry_after_s || reason == "SLOW_CONSUMER" || (reason.empty() && is_cut);
  }
};

inline Error decode(const grpc::Status& status) {
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  Error error(status.error_message());
  error.status = static_cast<google::rpc::Code>(status.error_code());
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  google::rpc::BadRequest bad;
  for (const auto& detail : rich.details()) {
    if (detail.UnpackTo(&info)) {
      error.reason = info.reason();
      error.metadata = {info.metadata().begin(), info.metadata().end()};
    } else if (detail.UnpackTo(&retry)) {
      error.retry_after_s = retry.retry_delay().seconds() + retry.retry_delay().nanos() / 1e9;
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations()) error.violations.push_back(violation.field());
    }
  }
  return error;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("cannot read " + path);
  return (std::ostringstream() << file.rdbuf()).str();
}

// The key file: lines `name = "value"`. The files of mutual TLS lie beside it, unless it names a place.
inline std::map<std::string, std::string> read_key_file(const std::string& path) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const size_t middle = line.find(" = \""), end = line.rfind('"');
    if (middle != std::string::npos) fields[line.substr(0, middle)] = line.substr(middle + 4, end - middle - 4);
  }
  for (const char* name : {"ca", "certificate", "private_key"}) {
    if (fields.count(name)) fields[name] = std::filesystem::path(path).parent_path() / fields[name];
  }
  return fields;
}

inline void sleep_s(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Runs `attempt` until it says that the daemon drains; comes back after whatever may pass.
inline void persist(const std::function<bool(int& failures)>& attempt) {
  for (int failures = 0;;) {
    double pause_s = 0;
    try {
      if (attempt(failures)) return;
    } catch (const Error& refusal) {
      if (!refusal.may_pass()) throw;
      pause_s = refusal.retry_after_s.value_or(0);
    }
    sleep_s(std::max(pause_s, std::min(2.0, 0.05 * std::exp2(++failures))));
  }
}

// One daemon, and the key that signs for it.
class Daemon {
 public:
  Daemon(const std::string& address, std::map<std::string, std::string> key) : key_(std::move(key)) {
    grpc::ChannelArguments options;
    options.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // gRPC's own retries would send the same nonce again
    options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
    options.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);  // without it a pause may last two minutes
    const bool is_tls = address.starts_with("tls:");
    auto credentials = grpc::InsecureChannelCredentials();
    if (is_tls) {
      const auto read = [this](const char* name) { return read_file(field(name)); };
      credentials = grpc::SslCredentials({read("ca"), read("private_key"), read("certificate")});
    }
    channel = grpc::CreateCustomChannel(is_tls ? address.substr(4) : address, credentials, options);
  }

  std::shared_ptr<grpc::Channel> channel;
  v1::GetServerInfoResponse info;

  // Learn whom to sign for: the daemon's id, the epoch of this start, its clock. Again after each cut.
  void meet() {
    info = call(*v1::ServerService::NewStub(channel), &v1::ServerService::Stub::GetServerInfo, {});
    clock_offset_ns_ = info.server_time().seconds() * 1'000'000'000 + info.server_time().nanos() - now_ns();
  }

  // `message` signed for one attempt to call the method, "Service/Method".
  v1::SignedEnvelope sign(const std::string& method, const google::protobuf::Message& message) const {
    const int64_t time_ns = now_ns() + clock_offset_ns_;
    v1::SignedHeader header;
    header.set_key_id(field("key_id"));
    header.set_audience(info.server_id());
    header.set_epoch(info.epoch());
    header.set_method("/esper.leyline.v1." + method);
    header.mutable_issue_time()->set_seconds(time_ns / 1'000'000'000);
    header.mutable_issue_time()->set_nanos(static_cast<int32_t>(time_ns % 1'000'000'000));
    header.set_nonce(random_bytes(16));
    v1::SignedEnvelope envelope;
    envelope.set_header(header.SerializeAsString());
    envelope.set_payload(message.SerializeAsString());
    envelope.set_signature(signature(from_hex(field("secret")), envelope.header(), envelope.payload()));
    return envelope;
  }

  // One unary call, e.g. call(*stub, &v1::RunService::Stub::GetRun, {}).
  template <class Stub, class Request, class Answer>
  Answer call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Answer*),
              const std::type_identity_t<Request>& request, int timeout_s = 10) {
    Answer answer;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(timeout_s));
    const grpc::Status status = (stub.*method)(&context, request, &answer);
    return status.ok() ? answer : throw decode(status);
  }

  // One signed call. Each attempt is signed anew; the request_id in the message makes a second one harmless.
  template <class Stub, class Request, class Answer>
  Answer call_signed(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Answer*),
                     const std::string& name, const google::protobuf::Message& message) {
    const int64_t last_ns = now_ns() + 30'000'000'000;
    for (int attempt = 1;; ++attempt) {
      try {
        if (attempt > 1) meet();
        Request request;
        *request.mutable_envelope() = sign(name, message);
        return call(stub, method, request);
      } catch (const Error& refusal) {
        const bool is_stale = refusal.reason == "EPOCH_STALE" || refusal.reason == "TIMESTAMP_OUT_OF_WINDOW";
        if (now_ns() > last_ns || !(is_stale || refusal.may_pass())) throw;
        sleep_s(refusal.retry_after_s.value_or(std::min(2.0, 0.05 * std::exp2(attempt))));
      }
    }
  }

 private:
  const std::string& field(const char* name) const {
    if (const auto found = key_.find(name); found != key_.end()) return found->second;
    Error error(std::string("the key file has no ") + name);
    error.status = google::rpc::INVALID_ARGUMENT;
    throw error;
  }

  static int64_t now_ns() {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
  }

  std::map<std::string, std::string> key_;
  int64_t clock_offset_ns_ = 0;
};

}  // namespace leyline
