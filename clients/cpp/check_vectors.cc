// Checks the test vectors of signed requests: this signer makes every genuine signature, and no other.
//
//     build/check_vectors FILE

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <iostream>

#include "leyline.h"

int main(int argc, char** argv) {
  google::protobuf::Struct file;
  if (argc != 2 || !google::protobuf::util::JsonStringToMessage(leyline::read_file(argv[1]), &file).ok()) return 2;
  int num = 0, num_genuine = 0;
  for (const auto& vector : file.fields().at("vectors").list_value().values()) {
    const auto text = [&](const char* name) { return vector.struct_value().fields().at(name).string_value(); };
    const auto bytes = [&](const char* name) { return leyline::from_hex(text(name)); };
    const std::string expected = text("expected");
    const std::string made = leyline::signature(bytes("key_hex"), bytes("header_hex"), bytes("payload_hex"));
    const bool is_genuine = made == bytes("signature_hex");
    if (is_genuine == (expected == "SIGNATURE_INVALID") && expected != "SIGNATURE_MISSING") {
      return std::cerr << text("name") << ": the signature should be " << expected << std::endl, 1;
    }
    ++num;
    num_genuine += is_genuine;
  }
  std::cout << num << " vectors, " << num_genuine << " of them genuine" << std::endl;
}
