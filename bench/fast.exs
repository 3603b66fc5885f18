defmodule Mlx.Bench.Fast do
  @moduledoc false

  # The functions of `Mlx.Fast`, each by itself.

  import Mlx.Bench.Transformer, only: [random: 1]

  alias Mlx.Fast

  def cases do
    x = random({512, 2048})
    weight = random({2048})
    heads = random({1, 8, 512, 64})
    [key, token] = for length <- [1024, 1], do: random({1, 8, length, 64})
    square = random({4096, 4096})
    gate = random({512, 4096})
    half = Nx.as_type(heads, :bf16)
    Mlx.eval({x, weight, heads, key, token, square, gate, half})

    attend = &Fast.scaled_dot_product_attention/4

    [
      {"fast_rms_norm_512x2048", fn -> Fast.rms_norm(x, weight) end},
      {"fast_layer_norm_512x2048", fn -> Fast.layer_norm(x, weight, weight) end},
      {"fast_rope_8x512x64", fn -> Fast.rope(heads, 3) end},
      {"fast_rope_token", fn -> Fast.rope(token, 3) end},
      {"fast_attention_8x512x64", fn -> attend.(heads, heads, heads, causal: true) end},
      {"fast_attention_bf16", fn -> attend.(half, half, half, causal: true) end},
      {"fast_attention_token", fn -> attend.(token, key, key, []) end},
      {"fast_swiglu_512x4096", fn -> Fast.swiglu(gate, gate) end},
      {"fast_gelu_512x4096", fn -> Fast.gelu(gate) end},
      {"fast_softmax_4096x4096", fn -> Fast.softmax(square) end},
      {"fast_einsum_8x512x64", fn -> Fast.einsum("bhqd,bhkd->bhqk", [heads, heads]) end}
    ]
    |> Enum.map(fn {name, run} -> {name, fn -> Mlx.eval(run.()) end} end)
  end
end
