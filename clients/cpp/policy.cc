// A policy in C++: grows a seed at the first vacant site when the validation loss has stopped falling.
//
//     build/policy ADDRESS KEY_FILE [NAME]
//
// It writes a checkpoint, shows the seeds and steers until the daemon drains. Copy it and change `choose`.

#include <algorithm>
#include <iostream>
#include <syncstream>

#include "esper/leyline/v1/command_service.grpc.pb.h"
#include "esper/leyline/v1/policy_service.grpc.pb.h"
#include "esper/leyline/v1/state_service.grpc.pb.h"
#include "leyline.h"

namespace v1 = esper::leyline::v1;
using leyline::Daemon, leyline::Error;

constexpr size_t patience_epochs = 3;
constexpr double min_improvement = 0.01;  // a loss that falls by less in patience_epochs epochs stands still

void say(const std::vector<std::string>& words) {
  std::osyncstream line(std::cout);  // two threads say things
  for (const auto& word : words) line << word << ' ';
  line << std::endl;
}

struct Policy {
  // Adds to the decision the commands for one packet; none means wait.
  void choose(const v1::SystemStatePacket& packet, v1::PolicyDecision& decision) {
    for (const auto& site : packet.sites()) sites[site.site()] = site;  // only those that changed are sent
    if (packet.reason() == "epoch_end") losses.push_back(packet.validation_loss());
    const auto open = std::ranges::find_if(sites, [&](const auto& entry) {
      const v1::Site& site = entry.second;
      return site.vacant() && site.offers_size() && site.embargoed_until_step() <= packet.global_step();
    });
    if (open == sites.end() || losses.size() <= patience_epochs) return;
    if (losses.back() <= losses[losses.size() - 1 - patience_epochs] * (1 - min_improvement)) return;
    losses.clear();  // judge the seed on what comes after it
    const auto cost = [](const v1::BlueprintOffer& offer) { return offer.cost().num_parameters(); };
    v1::AdaptationCommand& command = *decision.add_commands();
    command.set_request_id(leyline::to_hex(leyline::random_bytes(16)));
    command.set_reason("the validation loss stands still");
    v1::CommandSeedOperation& asked = *command.mutable_seed_operation();
    asked.set_operation(v1::SEED_OPERATION_GERMINATE);
    asked.set_site(open->first);
    asked.set_blueprint_id(std::ranges::min_element(open->second.offers(), {}, cost)->blueprint_id());
    asked.set_auto_advance(true);
    say({"asked", asked.site(), asked.blueprint_id()});
  }
  std::vector<double> losses;
  std::map<std::string, v1::Site> sites;
};

// Shows each seed's stage as it changes. The resume token of the last message is where the next watch begins.
void watch(const Daemon& daemon) {
  std::map<std::string, v1::SeedLifecycleStage> stages;
  v1::WatchStateRequest request;
  request.set_delivery(v1::DELIVERY_POLICY_EVERY);
  request.set_resnapshot_on_gap(true);
  leyline::persist([&](int& failures) {
    grpc::ClientContext context;
    const auto stub = v1::StateService::NewStub(daemon.channel);
    const auto stream = stub->WatchState(&context, request);
    for (v1::WatchStateResponse message; stream->Read(&message); failures = 0) {
      request.set_resume_token(message.resume_token());
      if (message.has_snapshot()) say({"snapshot"});
      for (const auto& seed : message.has_snapshot() ? message.snapshot().seeds() : message.delta().seeds()) {
        auto& stage = stages[seed.seed_id()];
        if (stage != seed.stage()) say({"seed", seed.seed_id(), SeedLifecycleStage_Name(seed.stage())});
        stage = seed.stage();
      }
      if (message.draining()) return true;
    }
    const grpc::Status status = stream->Finish();
    return status.ok() ? false : throw leyline::decode(status);
  });
}

// Holds the lease and answers each packet; a new session is opened when one breaks.
void steer(Daemon& daemon, Policy policy, const std::string& name) {
  leyline::persist([&](int& failures) {
    daemon.meet();
    grpc::ClientContext context;
    const auto stub = v1::PolicyService::NewStub(daemon.channel);
    const auto session = stub->DecisionStream(&context);
    const auto send = [&](const google::protobuf::Message& message) {
      v1::DecisionStreamRequest request;
      *request.mutable_envelope() = daemon.sign("PolicyService/DecisionStream", message);
      session->Write(request);  // a stream that has ended says why in Finish
    };
    v1::SessionOpening opening;
    opening.set_mode(v1::LEASE_MODE_STEER);
    opening.set_policy_name(name);
    send(opening);
    for (v1::DecisionStreamResponse message; session->Read(&message); failures = 0) {
      if (message.has_opened()) say({"session", LeaseMode_Name(message.opened().mode())});
      if (message.has_request()) {
        v1::PolicyDecision decision;
        decision.set_decision_id(message.request().decision_id());
        policy.choose(message.request().packet(), decision);
        send(decision);
      }
      if (message.receipt().has_error()) say({"refused", message.receipt().error().reason()});
      if (message.has_outcome()) {
        const v1::Command& done = message.outcome().command();
        say({"outcome", CommandState_Name(done.state()), done.seed_id(), done.error().reason()});
      }
      if (message.has_draining()) return true;
    }
    const grpc::Status status = session->Finish();
    return status.ok() ? false : throw leyline::decode(status);
  });
}

// A signed command, and the wait for what becomes of it.
void write_checkpoint(Daemon& daemon) {
  v1::AdaptationCommand request;
  request.set_request_id(leyline::to_hex(leyline::random_bytes(16)));
  request.set_reason("a policy begins");
  request.mutable_checkpoint();
  using Stub = v1::CommandService::Stub;
  const auto stub = v1::CommandService::NewStub(daemon.channel);
  const auto accepted = daemon.call_signed(*stub, &Stub::SubmitCommand, "CommandService/SubmitCommand", request);
  v1::GetCommandRequest which;
  which.set_command_id(accepted.command().command_id());
  which.set_wait_ms(20'000);
  say({"checkpoint", CommandState_Name(daemon.call(*stub, &Stub::GetCommand, which, 30).command().state())});
}

// Runs one part of the policy; what ends it ends the process.
void guarded(const std::function<void()>& part) try {
  part();
} catch (const Error& error) {
  say({"failed", google::rpc::Code_Name(error.status), error.reason});
  for (const auto& field : error.violations) say({"invalid", field});
  std::cerr << error.what() << std::endl;
  std::quick_exit(1);
}

int main(int argc, char** argv) {
  if (argc < 3) return std::cerr << "policy ADDRESS KEY_FILE [NAME]" << std::endl, 2;
  guarded([&] {
    Daemon daemon(argv[1], leyline::read_key_file(argv[2]));
    daemon.meet();
    write_checkpoint(daemon);
    std::jthread watching(guarded, [&] { watch(daemon); });
    guarded([&] { steer(daemon, Policy(), argc > 3 ? argv[3] : "example"); });
  });
}
